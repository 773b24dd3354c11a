//! Leases on work: their holder does it, and others leave it to that holder until the lease ends.
//!
//! Nothing is correct because of a lease. It ends by itself, by the store's time, and the next holder goes
//! on where the work was left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::{Bson, Document, doc};

use crate::documents::{Batch, DocumentStore, Guard, Namespace, Write};
use crate::records::{int, number};
use crate::{Env, Result, Timestamp};

/// The collection of the leases of a database.
pub(crate) const LEASES: &str = "chronos_leases";
/// The field by which leases that nobody takes any more are found.
pub(crate) const EXPIRES: &str = "expiresAt";
/// How long a lease lasts without renewal.
const LEASE: Duration = Duration::from_secs(15);
/// How long after its last renewal it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);

const HOLDER: &str = "holder";
/// Grows each time the lease is taken, so that of two that have seen the same state one takes it.
const TURN: &str = "turn";

/// A lease that is held.
pub(crate) struct Lease {
    documents: Arc<dyn DocumentStore>,
    namespace: Namespace,
    name: String,
    holder: String,
    turn: i64,
    env: Env,
    /// What the last holder left in it.
    state: Document,
    /// When it was renewed, by this process's clock.
    renewed_at: AtomicI64,
}

impl Lease {
    /// Takes the lease `name`; none if another has it.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub(crate) async fn take(
        documents: Arc<dyn DocumentStore>,
        namespace: Namespace,
        name: &str,
        env: &Env,
    ) -> Result<Option<Self>> {
        let now = documents.now().await?;
        Self::take_if(documents, namespace, name, env, now, |_| true).await
    }

    /// [`take`](Self::take) at the store's time, unless `wanted` says no to what the last holder left in it.
    pub(crate) async fn take_if(
        documents: Arc<dyn DocumentStore>,
        namespace: Namespace,
        name: &str,
        env: &Env,
        now: Timestamp,
        wanted: impl FnOnce(&Document) -> bool + Send,
    ) -> Result<Option<Self>> {
        let found = documents.get(&namespace, vec![name.into()]).await?.pop();
        let ends = found.as_ref().and_then(|found| found.get_datetime(EXPIRES).ok());
        if ends.is_some_and(|at| Timestamp::from(*at) > now) {
            return Ok(None);
        }
        let turn = found.as_ref().map(|found| found.get(TURN).cloned().unwrap_or(Bson::Null));
        let next = found.as_ref().and_then(|found| number(found, TURN)).unwrap_or(0).saturating_add(1);
        let mut state = found.unwrap_or_default();
        for own in ["_id", HOLDER, TURN, EXPIRES] {
            state.remove(own);
        }
        if !wanted(&state) {
            return Ok(None);
        }
        let lease = Self {
            documents,
            namespace,
            name: name.to_owned(),
            holder: env.random.object_id().to_hex(),
            turn: next,
            env: env.clone(),
            state,
            renewed_at: AtomicI64::new(env.clock.now().as_millis()),
        };
        let held = lease.held_until(now.plus_millis(LEASE.as_millis() as i64));
        let write = match turn {
            Some(turn) => Write::put(held, Guard::Equals { field: TURN.into(), value: turn }),
            None => Write::insert(held),
        };
        Ok(lease.apply(write).await?.then_some(lease))
    }

    /// What the last holder left in it.
    pub(crate) const fn state(&self) -> &Document {
        &self.state
    }

    fn held_until(&self, end: Timestamp) -> Document {
        let mut held = doc! { "_id": &self.name, HOLDER: &self.holder, TURN: int(self.turn), EXPIRES: end };
        held.extend(self.state.clone());
        held
    }

    async fn apply(&self, write: Write) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.namespace, write);
        Ok(self.documents.apply(batch).await?.first().is_some_and(|outcome| outcome.is_applied()))
    }

    fn if_held(&self) -> Guard {
        Guard::Equals { field: HOLDER.into(), value: self.holder.as_str().into() }
    }

    /// Renews the lease once a third of its time is over; whether it is still held.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub(crate) async fn keep(&self) -> Result<bool> {
        let since = self.env.clock.now().as_millis() - self.renewed_at.load(Ordering::Acquire);
        // A clock that went back says nothing of how much of the lease is over.
        if (0..RENEWAL.as_millis() as i64).contains(&since) {
            return Ok(true);
        }
        let end = self.documents.now().await?.plus_millis(LEASE.as_millis() as i64);
        let kept = self.apply(Write::put(self.held_until(end), self.if_held())).await?;
        self.renewed_at.store(self.env.clock.now().as_millis(), Ordering::Release);
        Ok(kept)
    }

    /// Renews the lease for as long as this is awaited. Returns when it is lost, or cannot be renewed.
    pub(crate) async fn hold(&self) -> Result<()> {
        loop {
            self.env.clock.sleep(RENEWAL).await;
            if !self.keep().await? {
                return Ok(());
            }
        }
    }

    /// Gives the lease back, so that nobody has to wait for its end.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails; it then ends by itself.
    pub(crate) async fn give_back(self) -> Result<()> {
        self.apply(Write::Delete { id: self.name.as_str().into(), guard: self.if_held() }).await.map(drop)
    }

    /// Gives the lease back, with something for the next holder in it.
    ///
    /// # Errors
    /// As [`give_back`](Self::give_back).
    pub(crate) async fn leave(mut self, state: Document, now: Timestamp) -> Result<()> {
        self.state = state;
        let mut left = self.held_until(now);
        left.remove(HOLDER);
        self.apply(Write::put(left, self.if_held())).await.map(drop)
    }
}
