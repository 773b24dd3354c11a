//! Leases on work: who holds one does it, and others leave it to them for as long.
//!
//! Nothing is correct because of a lease. It ends by itself, by the store's time, and whoever comes next goes
//! on where the work was left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::{Document, doc};

use crate::documents::{Batch, DocumentStore, Guard, Namespace, Outcome, Write};
use crate::{Env, Result, Timestamp};

/// The collection of the leases of a database.
pub(crate) const LEASES: &str = "chronos_leases";
/// How long a lease lasts without renewal.
const LEASE: Duration = Duration::from_secs(30);

/// A lease that is held.
pub(crate) struct Lease {
    documents: Arc<dyn DocumentStore>,
    namespace: Namespace,
    name: String,
    holder: String,
    env: Env,
    /// When it is renewed, by this process's clock.
    renew_at: AtomicI64,
}

impl Lease {
    /// Takes the lease `name`; none if somebody else has it.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub(crate) async fn take(
        documents: Arc<dyn DocumentStore>,
        namespace: Namespace,
        name: &str,
        env: &Env,
    ) -> Result<Option<Self>> {
        let holder = env.random.object_id().to_hex();
        let renew_at = AtomicI64::new(next_renewal(env));
        let lease = Self { documents, namespace, name: name.to_owned(), holder, env: env.clone(), renew_at };
        Ok(lease.try_take().await?.then_some(lease))
    }

    fn document(&self, now: Timestamp) -> Document {
        let until = now.plus_millis(LEASE.as_millis() as i64);
        doc! { "_id": &self.name, "holder": &self.holder, "expiresAt": until }
    }

    async fn apply(&self, write: Write) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.namespace, write);
        Ok(self.documents.apply(batch).await?.first() == Some(&Outcome::Applied))
    }

    fn held_by(holder: impl Into<bson::Bson>) -> Guard {
        Guard::Equals { field: "holder".into(), value: holder.into() }
    }

    async fn try_take(&self) -> Result<bool> {
        let now = self.documents.now().await?;
        if self.apply(Write::insert(self.document(now))).await? {
            return Ok(true);
        }
        let current = self.documents.get(&self.namespace, vec![self.name.as_str().into()]).await?.pop();
        // Given back just now: whoever did may have ended the work, and there will be another round.
        let Some(current) = current else { return Ok(false) };
        if current.get_datetime("expiresAt").is_ok_and(|at| Timestamp::from(*at) > now) {
            return Ok(false);
        }
        let holder = current.get("holder").cloned().unwrap_or(bson::Bson::Null);
        self.apply(Write::put(self.document(now), Self::held_by(holder))).await
    }

    /// Renews the lease once a third of its time is over; whether it is still held.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub(crate) async fn keep(&self) -> Result<bool> {
        if self.env.clock.now().as_millis() < self.renew_at.load(Ordering::Acquire) {
            return Ok(true);
        }
        let now = self.documents.now().await?;
        let kept = self.apply(Write::put(self.document(now), Self::held_by(self.holder.as_str()))).await?;
        self.renew_at.store(next_renewal(&self.env), Ordering::Release);
        Ok(kept)
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails; it then ends by itself.
    pub(crate) async fn give_back(self) -> Result<()> {
        let guard = Self::held_by(self.holder.as_str());
        self.apply(Write::Delete { id: self.name.as_str().into(), guard }).await.map(drop)
    }
}

fn next_renewal(env: &Env) -> i64 {
    env.clock.now().as_millis() + LEASE.as_millis() as i64 / 3
}
