//! What lies of an item outside of its records: operations of the fallback queue, and messages.

use std::sync::Arc;

use crate::Chronos;
use crate::Result;
use crate::config::{DatabaseType, Selector};
use crate::fallback::queue::Queue;
use crate::messaging::{MessagingDb, Naming};
use crate::records::{Collection, ItemId};

/// Whose messaging database tenants have that have none of their own.
const DEFAULT_TENANT: &str = "default";

/// The places outside of the records in which an item may be.
pub(super) struct Beside {
    database: String,
    id: ItemId,
    queues: Vec<Arc<Queue>>,
    /// Whose messages are looked at; none for those of all.
    tenant: Option<String>,
    messaging: Vec<Arc<MessagingDb>>,
}

impl Beside {
    /// `tenant` is the one that the item's documents say, if they do.
    pub(super) async fn of(
        chronos: &Chronos,
        collection: &Collection,
        id: ItemId,
        tenant: Option<String>,
    ) -> Result<Self> {
        let config = chronos.config();
        let owner = collection.upkeep_scope().await?.owner().map(str::to_owned);
        let tenant = tenant.or(owner);
        let queues = match chronos.queues() {
            Some(queues) => queues.near(config, collection.database())?,
            None => Vec::new(),
        };
        let mut messaging: Vec<Arc<MessagingDb>> = Vec::new();
        for entry in config.entries.iter().filter(|e| e.database_type == Some(DatabaseType::Messaging)) {
            // A tenant without messages of its own has them where those of the default tenant are.
            let may_be_there = match (&entry.selector, &tenant) {
                (Selector::Tenant(of), Some(tenant)) => of == tenant || of == DEFAULT_TENANT,
                _ => true,
            };
            if let Some(database) = entry.database.as_ref().filter(|_| may_be_there) {
                messaging.push(chronos.messaging_db(entry, database)?);
            }
        }
        Ok(Self { database: collection.database().to_owned(), id, queues, tenant, messaging })
    }

    /// How many messages and operations there are.
    pub(super) async fn count(&self) -> Result<(u64, u64)> {
        let (mut messages, mut operations) = (0, 0);
        for db in &self.messaging {
            messages += self.naming(db).count().await?;
        }
        for queue in &self.queues {
            operations += queue.count_of(&self.database, self.id).await?;
        }
        Ok((messages, operations))
    }

    /// Removes them, to the last byte.
    pub(super) async fn remove(&self) -> Result<()> {
        // An operation that is being carried out finds its item gone, and becomes a dead letter; those go last.
        for queue in &self.queues {
            queue.forget(&self.database, self.id).await?;
        }
        for db in &self.messaging {
            self.naming(db).remove().await?;
        }
        Ok(())
    }

    fn naming<'a>(&'a self, db: &'a MessagingDb) -> Naming<'a> {
        Naming { db, tenant: self.tenant.as_deref(), id: self.id }
    }
}
