//! How many versions did what.

use bson::Document;

use crate::config::CountedOp;
use crate::records::{Op, int, number};
use crate::{Json, json};

/// How many versions created, updated and deleted something. Enriching and restoring are updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Creations.
    pub created: u64,
    /// Updates of every kind.
    pub updated: u64,
    /// Deletions.
    pub deleted: u64,
}

impl Counts {
    /// All of them.
    ///
    /// ```
    /// assert_eq!(chronos_db::counters::Counts::default().sum(), 0);
    /// ```
    #[must_use]
    pub fn sum(self) -> u64 {
        self.created + self.updated + self.deleted
    }

    /// As JSON: `{created, updated, deleted}`.
    ///
    /// ```
    /// use chronos_db::{counters::Counts, json};
    /// assert_eq!(Counts::default().to_json(), json!({"created": 0, "updated": 0, "deleted": 0}));
    /// ```
    #[must_use]
    pub fn to_json(self) -> Json {
        json!({ "created": self.created, "updated": self.updated, "deleted": self.deleted })
    }

    pub(super) fn add(&mut self, op: CountedOp) {
        match op {
            CountedOp::Create => self.created += 1,
            CountedOp::Update => self.updated += 1,
            CountedOp::Delete => self.deleted += 1,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            created: self.created + other.created,
            updated: self.updated + other.updated,
            deleted: self.deleted + other.deleted,
        }
    }

    /// How many more these are; none if one of them is less.
    pub(super) fn beyond(self, other: Self) -> Option<Self> {
        Some(Self {
            created: self.created.checked_sub(other.created)?,
            updated: self.updated.checked_sub(other.updated)?,
            deleted: self.deleted.checked_sub(other.deleted)?,
        })
    }

    pub(super) fn put(self, document: &mut Document) {
        for (name, value) in [("created", self.created), ("updated", self.updated), ("deleted", self.deleted)]
        {
            document.insert(name, stored(value));
        }
    }

    /// None if they are damaged.
    pub(super) fn read(document: &Document) -> Option<Self> {
        let get = |name| read(document, name);
        Some(Self { created: get("created")?, updated: get("updated")?, deleted: get("deleted")? })
    }
}

/// A count as it is stored.
pub(super) fn stored(count: u64) -> bson::Bson {
    int(i64::try_from(count).unwrap_or(i64::MAX))
}

pub(super) fn read(document: &Document, name: &str) -> Option<u64> {
    number(document, name).and_then(|count| u64::try_from(count).ok())
}

/// What a row counts as; none where it is not a version, or says that it counts as nothing.
pub(super) fn counted(op: Op, ov: i64, counts: Option<Op>) -> Option<CountedOp> {
    match op {
        Op::Create => Some(CountedOp::Create),
        Op::Update | Op::Restore => Some(CountedOp::Update),
        Op::Delete => Some(CountedOp::Delete),
        Op::Erase => counts.map(|_| CountedOp::Delete),
        // Stubs of older versions say nothing of what they were.
        Op::Erased => match counts {
            None if ov == 0 => Some(CountedOp::Create),
            None => Some(CountedOp::Update),
            Some(was) if was.is_bare() => None,
            Some(was) => counted(was, ov, None),
        },
        Op::Void => None,
    }
}
