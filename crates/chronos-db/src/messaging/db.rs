//! One messaging database, opened.

use std::fmt;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::schema::Kind;
use crate::documents::{DocumentStore, Namespace};
use crate::{Env, Result};

/// A database and the client it is reached by; shared by the tenants in it.
pub(crate) struct MessagingDb {
    pub(super) documents: Arc<dyn DocumentStore>,
    pub(super) env: Env,
    database: Arc<str>,
    capture_deliveries: bool,
    ready: OnceCell<()>,
}

impl fmt::Debug for MessagingDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, capture_deliveries, .. } = self;
        f.debug_struct("MessagingDb")
            .field("database", database)
            .field("capture_deliveries", capture_deliveries)
            .finish_non_exhaustive()
    }
}

impl MessagingDb {
    pub(crate) fn new(
        documents: Arc<dyn DocumentStore>,
        database: &str,
        capture_deliveries: bool,
        env: Env,
    ) -> Self {
        Self { documents, env, database: database.into(), capture_deliveries, ready: OnceCell::new() }
    }

    /// The same without collections or indexes being made.
    pub(super) fn untouched(self) -> Self {
        Self { ready: OnceCell::new_with(Some(())), ..self }
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn captures_deliveries(&self) -> bool {
        self.capture_deliveries
    }

    pub(super) fn namespace(&self, kind: Kind) -> Namespace {
        Namespace::new(Arc::clone(&self.database), kind.name())
    }

    /// The client, after collections and indexes have been made, once per process.
    pub(super) async fn ready(&self) -> Result<&dyn DocumentStore> {
        self.ready.get_or_try_init(|| self.ensure()).await?;
        Ok(&*self.documents)
    }

    /// The client, for reading alone: a user who may not create what is missing reads without it.
    pub(super) async fn looking(&self) -> Result<&dyn DocumentStore> {
        match self.ready().await {
            Err(error) if error.is_forbidden() => Ok(&*self.documents),
            ready => ready,
        }
    }

    async fn ensure(&self) -> Result<()> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Deliveries || self.capture_deliveries);
        futures::future::try_join_all(kinds.map(|kind| self.ensure_collection(kind))).await?;
        Ok(())
    }

    async fn ensure_collection(&self, kind: Kind) -> Result<()> {
        let namespace = self.namespace(kind);
        let (mut key, others) = (kind.key_index(), kind.indexes());
        self.documents.ensure(&namespace, &others).await?;
        match self.documents.ensure(&namespace, std::slice::from_ref(&key)).await {
            Err(error) if !error.is_retryable() && error.message().contains(&key.name) => {
                // The legacy library numbered versions and kept dead letters without one, and left
                // duplicates. What we write is unique by its `_id` too.
                tracing::warn!(collection = ?namespace, %error, "messaging documents are not unique; their key index stays a plain one");
                key.name.push_str("_plain");
                key.unique = false;
                self.documents.ensure(&namespace, &[key]).await
            }
            ensured => ensured,
        }
    }
}
