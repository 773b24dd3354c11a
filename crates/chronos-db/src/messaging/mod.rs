//! The messaging database of a tenant: shared values, topics, messages, deliveries and dead letters, as plain
//! documents without versions or objects.
//!
//! Every document carries its `tenantId` and every question asks for it, whether tenants share a database or
//! have their own, so that data can move between the two layouts
//! ([`migrate`](crate::Chronos::migrate_messaging)). Documents have the flat fields of the legacy library,
//! and `_system` beside them: `{createdAt, updatedAt, retentionDays?, expiresAt?, tombstone?, deletedAt?}`.
//! Documents that the legacy library wrote are found by their fields, and one without a `namespace` is in the
//! namespace `default`.
//!
//! `db.rs` is the database, `schema.rs` its collections, keys and indexes, `table.rs` one collection of one
//! tenant with compare-and-swap; above it each collection has a file (or folder) with its actions.
//! `raw_collection.rs` and `normalize.rs` give plain access by filters, `migrate.rs` moves between layouts.
//! It stands on `documents/` alone; of the records it takes page tokens and identifiers.

mod db;
mod dead_letters;
mod deliveries;
mod listing;
mod messages;
mod migrate;
mod naming;
mod normalize;
mod prune;
mod raw_collection;
mod schema;
mod shared;
mod table;
mod topics;
mod value;

use std::fmt;
use std::sync::Arc;

pub(crate) use db::MessagingDb;
pub use dead_letters::{
    DeadLetter, DeadLetters, DeleteDeadLetter, GetDeadLetter, KeptDeadLetters, ListDeadLetters,
    SaveDeadLetter,
};
pub use deliveries::{AppendDelivery, Deliveries, Delivery, DeliveryStatus, ListDeliveries};
pub use messages::{GetMessage, ListMessages, Message, Messages, NewMessage, SaveMessage};
pub use migrate::{Migrate, Migrated};
pub(crate) use naming::Naming;
pub(crate) use prune::prune_every_tenant;
pub use prune::{Prune, Pruned};
pub use raw_collection::{DeleteMany, DeleteOne, Find, FindOne, Insert, RawCollection, Upsert};
pub use schema::{DEFAULT_NAMESPACE, Kind};
pub use shared::{
    ListKeys, Load, Save, Saved, Shared, SharedKey, SharedValue, Strategy, Tombstone, Versions,
};
pub use topics::{DeleteTopic, EnsureTopic, GetTopic, ListTopics, Topic, Topics};
pub use value::MAX_VALUE_BYTES;

use crate::{Error, Result};
use table::Table;

/// Makes a builder run when it is awaited.
macro_rules! runs {
    ($action:ty => $output:ty) => {
        impl std::future::IntoFuture for $action {
            type Output = crate::Result<$output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.run())
            }
        }
    };
}
use runs;

/// The messaging database as one tenant sees it; see [`Chronos::messaging`](crate::Chronos::messaging).
#[derive(Clone)]
pub struct Messaging {
    db: Arc<MessagingDb>,
    tenant: Arc<str>,
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging").field("tenant", &self.tenant).field("db", &self.db).finish()
    }
}

impl Messaging {
    pub(crate) fn new(db: Arc<MessagingDb>, tenant: &str) -> Self {
        Self { db, tenant: tenant.into() }
    }

    fn table(&self, kind: Kind) -> Table {
        Table::new(Arc::clone(&self.db), Arc::clone(&self.tenant), kind)
    }

    /// Returns the tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the name of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.db.database()
    }

    /// Values under a namespace and a key: the latest alone, or every one with a version.
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared::new(self.table(Kind::SharedMemory))
    }

    /// Returns the registry of topics.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(self.table(Kind::Topics))
    }

    /// Returns the canonical copies of messages.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages::new(self.table(Kind::Messages))
    }

    /// Returns the delivery attempts; nothing is recorded there unless the configuration says
    /// `captureDeliveries`.
    #[must_use]
    pub fn deliveries(&self) -> Option<Deliveries> {
        self.db.captures_deliveries().then(|| Deliveries::new(self.table(Kind::Deliveries)))
    }

    /// Messages that failed for good.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.table(Kind::DeadLetters))
    }

    /// Returns plain access to one of the five collections: `shared_memory`, `topics`, `messages`,
    /// `deliveries`, `dead_letters`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for another name, and for `deliveries` unless the configuration says
    /// `captureDeliveries`.
    pub fn collection(&self, name: &str) -> Result<RawCollection> {
        let kind: Kind = name.parse()?;
        if kind == Kind::Deliveries && !self.db.captures_deliveries() {
            return Err(Error::validation(
                "deliveries are kept only where the configuration of messaging says `captureDeliveries: true`",
            ));
        }
        Ok(RawCollection::new(self.table(kind)))
    }

    /// Removes this tenant's documents whose time has passed.
    pub fn prune(&self) -> Prune {
        Prune::new(self.clone())
    }
}
