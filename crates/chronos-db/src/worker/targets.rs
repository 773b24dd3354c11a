//! What there is to work on: every entry of a configuration, and every collection in its database.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::job::{FailureKey, Subject, Target};
use crate::config::{Config, DatabaseType, Entry};
use crate::documents::{DocumentStore, Namespace};
use crate::lease::LEASES;
use crate::projections::analytics_db::homes;
use crate::records::tenants_of;
use crate::{Chronos, ErrorKind, Resolved, Result, validate_name};

/// An entry of the configuration.
#[derive(Clone, Debug)]
pub(super) struct EntryRef(Arc<Entry>);

impl EntryRef {
    pub(super) fn path(&self) -> &str {
        &self.0.path
    }

    pub(super) fn shown(&self) -> String {
        format!("{} (connection `{}`)", self.0.path, self.0.connection)
    }

    /// Whether a lease may be of something in its database.
    pub(super) fn may_hold(&self, lease: &str) -> bool {
        self.0.database.as_ref().is_none_or(|database| lease.contains(&format!("db:{database}")))
    }
}

/// The entries that lead to different documents, counters or objects.
pub(super) fn distinct_entries(config: &Config) -> impl Iterator<Item = EntryRef> {
    config.distinct_entries().into_iter().map(EntryRef)
}

/// What an entry leads to.
pub(super) enum Listed {
    Target(Target),
    Candidate(Candidate),
}

/// A collection of records by its name, in which the entry may see nothing.
pub(super) struct Candidate {
    chronos: Chronos,
    resolved: Resolved,
    key: String,
    shown: String,
}

/// What an entry leads to. The names are read at once, everything else when its turn comes.
pub(super) async fn list(chronos: &Chronos, entry: &EntryRef) -> Result<BoxStream<'static, Result<Listed>>> {
    let documents = chronos.documents(&entry.0.connection)?;
    let databases = match &entry.0.database {
        Some(database) => vec![database.clone()],
        // Contexts of version 1 name their database.
        None => documents.databases().await?,
    };
    let (chronos, entry) = (chronos.clone(), entry.clone());
    let one_after_the_other = stream::iter(databases).then(move |database| {
        let (chronos, entry, documents) = (chronos.clone(), entry.clone(), Arc::clone(&documents));
        async move { of_database(chronos, entry, documents, database).await }
    });
    Ok(one_after_the_other.try_flatten().boxed())
}

async fn of_database(
    chronos: Chronos,
    entry: EntryRef,
    documents: Arc<dyn DocumentStore>,
    database: String,
) -> Result<BoxStream<'static, Result<Listed>>> {
    let names: HashSet<String> = documents.collections(&database).await?.into_iter().collect();
    let target = |lease: String, shown: String, subject: Subject| Target {
        lease,
        shown,
        documents: Arc::clone(&documents),
        leases: Namespace::new(database.as_str(), LEASES),
        subject,
    };
    let mut others = Vec::new();
    if names.contains(LEASES) {
        let shown = format!("the leases of {}", entry.shown());
        let lease = format!("work|leases|db:{database}");
        others.push(Ok(Listed::Target(target(lease, shown, Subject::Database))));
    }
    if entry.0.database_type == Some(DatabaseType::Messaging) && !names.is_empty() {
        let messaging = Subject::Messaging(chronos.messaging_db(&entry.0, &database)?);
        let lease = format!("work|messaging|db:{database}");
        others.push(Ok(Listed::Target(target(lease, entry.shown(), messaging))));
    }
    // Others may have collections of such names that are not records; in a messaging database nothing is one.
    let has_records = entry.0.database_type != Some(DatabaseType::Messaging);
    let mut records: Vec<String> = names
        .iter()
        .filter(|_| has_records)
        .filter_map(|name| name.strip_suffix("_head"))
        .filter(|name| names.contains(&format!("{name}_ver")) && validate_name("collection", name).is_ok())
        .map(str::to_owned)
        .collect();
    records.sort_unstable();
    drop(names);
    let records = stream::iter(records).flat_map(move |name| {
        let (chronos, entry, database) = (chronos.clone(), entry.clone(), database.clone());
        let tenants = match &entry.0.database {
            Some(_) => stream::once(async { Ok(None) }).boxed(),
            None => {
                tenants_of(Arc::clone(&documents), Namespace::new(database.as_str(), format!("{name}_head")))
            }
        };
        tenants.map_ok(move |tenant| {
            Listed::Candidate(Candidate::new(&chronos, &entry, database.clone(), name.clone(), tenant))
        })
    });
    Ok(stream::iter(others).chain(records).boxed())
}

impl Candidate {
    fn new(
        chronos: &Chronos,
        entry: &EntryRef,
        database: String,
        collection: String,
        enforced_tenant: Option<String>,
    ) -> Self {
        let of = enforced_tenant.as_ref().map(|tenant| format!(" of tenant `{tenant}`")).unwrap_or_default();
        let shown = format!("`{collection}`{of} of {}", entry.shown());
        let tenant = enforced_tenant.as_ref().map(|tenant| format!("|tenant:{tenant}")).unwrap_or_default();
        let key = format!("{}|db:{database}|coll:{collection}{tenant}", entry.path());
        let resolved = Resolved { entry: Arc::clone(&entry.0), database, collection, enforced_tenant };
        Self { chronos: chronos.clone(), resolved, key, shown }
    }

    /// What it is called while its lease is not known.
    pub(super) fn failure_key(&self) -> FailureKey<'_> {
        FailureKey { key: &self.key, shown: &self.shown }
    }

    /// None if the entry has nothing to work on there.
    pub(super) async fn target(&self) -> Result<Option<Target>> {
        let is_hashed = self.resolved.entry.database.is_none();
        let collection = self.chronos.resolved(&self.resolved)?;
        match collection.needs_upkeep().await {
            Ok(true) => {
                let homes = homes(self.chronos.config(), &self.resolved);
                Target::of_collection(&collection, &homes, self.shown.clone()).await.map(Some)
            }
            Ok(false) => Ok(None),
            // The database of one tenant, which a context without a tenant does not reach.
            Err(error) if is_hashed && error.kind() == ErrorKind::Validation => Ok(None),
            Err(error) => Err(error),
        }
    }
}
