//! What every question and every task of counters begins with: whose they are, and where.

use std::sync::Arc;

use super::change::Periods;
use super::record::{Owner, Record};
use super::store::CounterStore;
use crate::config::{CheckedRule, CounterRules};
use crate::projections::log::Log;
use crate::records::{Collection, Workers};
use crate::{Error, Result};

pub(super) struct Session {
    /// The connection of the records.
    pub(super) connection: Arc<str>,
    pub(super) workers: Arc<Workers>,
    pub(super) store: CounterStore,
    pub(super) log: Log,
    pub(super) rules: CounterRules,
}

/// What the counters of a collection are stored under: what tells one handle's documents from others.
pub(crate) async fn owner_of(collection: &Collection) -> Result<String> {
    let scope = collection.upkeep_scope().await?;
    let backend = collection.analytics.backend.as_deref();
    Ok(Owner::new(scope, collection.database(), collection.name(), backend).id)
}

impl Session {
    pub(super) async fn open(collection: &Collection) -> Result<Self> {
        let scope = collection.upkeep_scope().await?.clone();
        let (workers, analytics) = (&collection.workers, &collection.analytics);
        let backend = analytics.backend.as_deref();
        let owner = Owner::new(&scope, collection.database(), collection.name(), backend);
        let store = CounterStore {
            documents: analytics.db.documents()?,
            db: Arc::clone(&analytics.db),
            owner,
            env: workers.index.env.clone(),
        };
        let log = Log::new(workers, scope);
        let rules = workers.index.settings.rules.configured().clone();
        let connection = Arc::clone(&analytics.records);
        Ok(Self { connection, workers: Arc::clone(workers), store, log, rules })
    }

    /// The periods that are kept, at the time of the store.
    pub(super) async fn periods(&self) -> Result<Periods> {
        Ok(Periods::kept(&self.rules.keep, self.store.documents.now().await?))
    }

    /// The totals with every rule of this configuration, stored so that from here on all followers count
    /// them.
    pub(super) async fn registered(&self) -> Result<Record> {
        loop {
            let found = self.store.load().await?;
            let is_new = found.is_none();
            let mut record = found.unwrap_or_else(|| self.blank());
            if !record.adopt(&self.rules.rules) && !is_new {
                return Ok(record);
            }
            self.store.ensure().await?;
            if let Some(stored) = self.store.put(&record).await? {
                return Ok(stored);
            }
        }
    }

    /// Totals of the whole log, with nothing of it in them yet.
    pub(super) fn blank(&self) -> Record {
        let mut record = Record::blank(self.workers.index.env.random.object_id(), -1);
        record.adopt(&self.rules.rules);
        record
    }

    /// The rule of that name.
    ///
    /// # Errors
    /// `VALIDATION_ERROR`, with the names there are, if there is none.
    pub(super) fn rule(&self, name: &str) -> Result<&Arc<CheckedRule>> {
        self.rules.rules.iter().find(|rule| rule.name == name).ok_or_else(|| {
            let names: Vec<String> = self.rules.rules.iter().map(|rule| format!("`{}`", rule.name)).collect();
            let there = if names.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            };
            Error::validation(format!("there is no counter rule `{}`; {there}", name.escape_debug()))
        })
    }
}
