//! The totals of one collection: the document of a follower, with its position.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};

use super::counts::{self, Counts};
use crate::config::CheckedRule;
use crate::documents::Guard;
use crate::projections::analytics_db::short_digest;
use crate::records::{Scope, int, number};
use crate::{Error, Result, Timestamp};

/// Whose totals they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The `_id` of the totals.
    pub(super) id: String,
    pub(super) tenant: Option<String>,
    pub(super) database: String,
    pub(super) collection: String,
}

impl Owner {
    pub(super) fn new(scope: &Scope, database: &str, collection: &str, backend: Option<&str>) -> Self {
        let tenant = scope.owner().map(str::to_owned);
        let of_tenant = tenant.as_deref().map(|tenant| format!("tenant:{tenant}|")).unwrap_or_default();
        let of_backend = backend.map(|backend| format!("|backend:{backend}")).unwrap_or_default();
        Self {
            id: format!("{of_tenant}db:{database}|coll:{collection}{of_backend}"),
            tenant,
            database: database.to_owned(),
            collection: collection.to_owned(),
        }
    }
}

/// What a rule has counted.
#[derive(Clone, Debug)]
pub(super) struct RuleRecord {
    pub(super) rule: Arc<CheckedRule>,
    /// Its name, and what tells its definition from others of that name.
    pub(super) id: String,
    /// It counts what comes behind this number.
    pub(super) since: i64,
    pub(super) counts: Counts,
    /// How many values each property had.
    pub(super) unique: BTreeMap<String, u64>,
}

impl RuleRecord {
    pub(super) fn new(rule: &Arc<CheckedRule>, since: i64) -> Self {
        let id = format!("{}#{}", rule.name, short_digest(rule.definition().as_bytes()));
        let unique = rule.unique.iter().map(|property| (property.clone(), 0)).collect();
        Self { rule: Arc::clone(rule), id, since, counts: Counts::default(), unique }
    }

    fn stored(&self) -> Document {
        let unique: Vec<Bson> = self
            .unique
            .iter()
            .map(|(property, count)| doc! { "property": property, "count": counts::stored(*count) }.into())
            .collect();
        let mut document = doc! {
            "name": &self.rule.name, "definition": self.rule.definition(), "since": int(self.since), "unique": unique,
        };
        self.counts.put(&mut document);
        document
    }

    fn read(document: &Document) -> Option<Self> {
        let rule = CheckedRule::from_definition(document.get_str("definition").ok()?).ok()?;
        let mut record = Self::new(&Arc::new(rule), number(document, "since")?);
        record.counts = Counts::read(document)?;
        for entry in document.get_array("unique").ok()? {
            let entry = entry.as_document()?;
            record.unique.insert(entry.get_str("property").ok()?.to_owned(), counts::read(entry, "count")?);
        }
        Some(record)
    }
}

/// The totals.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// What the next write of it compares; none where nothing is stored, or something of the legacy library.
    revision: Option<i64>,
    is_stored: bool,
    /// Which counts of values and periods belong to it.
    pub(super) generation: ObjectId,
    /// The position: rows up to this number are in it.
    pub(super) cv: i64,
    pub(super) counts: Counts,
    /// Those of this configuration, and those of others that count here.
    pub(super) rules: Vec<RuleRecord>,
    pub(super) last_at: Option<Timestamp>,
    /// From then on counts of other generations are removed.
    pub(super) sweep_after: Option<Timestamp>,
}

impl Record {
    /// The totals of a collection that nobody has counted, from `cv` on.
    pub(super) fn blank(generation: ObjectId, cv: i64) -> Self {
        Self {
            revision: None,
            is_stored: false,
            generation,
            cv,
            counts: Counts::default(),
            rules: Vec::new(),
            last_at: None,
            sweep_after: None,
        }
    }

    /// These, to replace `other` in the store.
    pub(super) fn in_place_of(mut self, other: &Self) -> Self {
        (self.revision, self.is_stored) = (other.revision, other.is_stored);
        self
    }

    /// Adds the rules that are not among its own: they count from here on. Whether there were any.
    pub(super) fn adopt(&mut self, rules: &[Arc<CheckedRule>]) -> bool {
        let missing: Vec<RuleRecord> = rules
            .iter()
            .map(|rule| RuleRecord::new(rule, self.cv))
            .filter(|new| self.rules.iter().all(|known| known.id != new.id))
            .collect();
        let any = !missing.is_empty();
        self.rules.extend(missing);
        any
    }

    /// The rule of a configuration, by its position here.
    pub(super) fn find(&self, rule: &Arc<CheckedRule>) -> Option<(usize, &RuleRecord)> {
        let id = RuleRecord::new(rule, 0).id;
        self.rules.iter().enumerate().find(|(_, known)| known.id == id)
    }

    /// The guard under which it replaces what it was read from; none if nothing may be there.
    pub(super) fn guard(&self) -> Option<Guard> {
        self.is_stored
            .then(|| Guard::Equals { field: "revision".into(), value: self.revision.map_or(Bson::Null, int) })
    }

    /// As it is once it is stored.
    pub(super) fn put(&self) -> Self {
        Self { revision: Some(self.next_revision()), is_stored: true, ..self.clone() }
    }

    fn next_revision(&self) -> i64 {
        self.revision.unwrap_or(0) + 1
    }

    pub(super) fn stored(&self, owner: &Owner) -> Document {
        let mut document = doc! {
            "_id": &owner.id, "tenant": owner.tenant.as_deref(), "dbName": &owner.database, "collection": &owner.collection,
            "revision": int(self.next_revision()), "generation": self.generation, "cv": int(self.cv),
        };
        self.counts.put(&mut document);
        let rules: Vec<Bson> = self.rules.iter().map(|rule| rule.stored().into()).collect();
        document.insert("rules", rules);
        for (name, at) in [("lastAt", self.last_at), ("sweepAfter", self.sweep_after)] {
            if let Some(at) = at {
                document.insert(name, at);
            }
        }
        document
    }

    /// The totals that are stored. Those of the legacy library, which have no position, are made anew from
    /// the log: `fresh` is their generation.
    ///
    /// # Errors
    /// `TXN_ERROR` if they are damaged.
    pub(super) fn read(document: &Document, owner: &Owner, fresh: ObjectId) -> Result<Self> {
        if document.get("generation").is_none() && document.get("revision").is_none() {
            return Ok(Self { is_stored: true, ..Self::blank(fresh, -1) });
        }
        Self::read_own(document).ok_or_else(|| {
            Error::database(format!("the counters `{}` are damaged; a recount makes them anew", owner.id))
        })
    }

    /// What replaces damaged totals.
    pub(super) fn of_damaged(document: &Document, fresh: ObjectId) -> Self {
        Self { is_stored: true, revision: number(document, "revision"), ..Self::blank(fresh, -1) }
    }

    fn read_own(document: &Document) -> Option<Self> {
        let rules = document.get_array("rules").ok()?.iter();
        let at = |name: &str| document.get_datetime(name).ok().map(|at| Timestamp::from(*at));
        Some(Self {
            revision: Some(number(document, "revision")?),
            is_stored: true,
            generation: document.get_object_id("generation").ok()?,
            cv: number(document, "cv")?,
            counts: Counts::read(document)?,
            rules: rules.map(|rule| RuleRecord::read(rule.as_document()?)).collect::<Option<_>>()?,
            last_at: at("lastAt"),
            sweep_after: at("sweepAfter"),
        })
    }
}
