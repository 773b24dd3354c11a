//! Leases on items: other writers wait for them, and what a holder writes must follow the version it saw.

use crate::records::index::RecordIndex;
use crate::records::index::batcher::Batcher;
use crate::records::write::schema::Schema;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write, raw_bson};
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::{Head, ItemId};
use crate::{Error, ErrorKind, Result, Timestamp};

/// How long a lease lasts without renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// How long other writers wait for a lease to end.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at a lease.
const LOOK: Duration = Duration::from_millis(50);

/// A held lease; see [`Collection::lock`](crate::Collection::lock).
///
/// It is renewed in the background until it is dropped or [released](ItemLock::release). Writes made through
/// it compare the version it saw, so a holder that stalled past its lease cannot overwrite what came after.
pub struct ItemLock {
    locks: Arc<Locks>,
    pub(crate) id: ItemId,
    pub(crate) token: String,
    /// The version that the holder's next write must follow; −1 before the first.
    pub(crate) seen: AtomicI64,
    /// Ends the renewal.
    renewal: DropGuard,
    lost: Arc<AtomicBool>,
}

crate::debug_some!(ItemLock { id, seen });

impl ItemLock {
    /// Returns the locked item.
    #[must_use]
    pub fn id(&self) -> ItemId {
        self.id
    }

    /// Returns the version the holder's next write must follow: the one at the time of locking, then that of
    /// its own last write.
    #[must_use]
    pub fn ov(&self) -> i64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Returns whether the lease could not be renewed in time, so that another process may hold it now.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Gives the lease back, so that others needn't wait for its end.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store does not answer; the lease then ends by itself.
    pub async fn release(self) -> Result<()> {
        drop(self.renewal);
        self.locks.give_back(self.id, &self.token).await
    }
}

fn expires(doc: &Document) -> Timestamp {
    doc.get_datetime("expiresAt").map_or(Timestamp::default(), |at| Timestamp::from(*at))
}

/// The leases of one collection.
pub(crate) struct Locks {
    index: Arc<RecordIndex>,
    schema: Arc<Schema>,
    reads: Arc<Batcher>,
}

impl Locks {
    pub(crate) fn new(index: Arc<RecordIndex>, schema: Arc<Schema>) -> Self {
        let reads = Batcher::new(Arc::clone(&index.documents), index.names.locks.clone());
        Self { index, schema, reads }
    }

    fn lease(&self, id: ItemId, token: &str, tenant: Option<&str>, now: Timestamp) -> Document {
        let mut lease = doc! {
            "_id": id.bson(), "itemId": id.bson(), "collection": &self.index.names.collection, "dbName": &*self.index.names.head.database,
            "operation": "UPDATE", "lockedAt": now, "expiresAt": now.plus_millis(LEASE.as_millis() as i64), "token": token,
        };
        lease.extend(tenant.map(|tenant| (TENANT.to_owned(), tenant.into())));
        lease
    }

    pub(crate) async fn lock(
        self: &Arc<Self>,
        id: ItemId,
        patience: Duration,
        scope: &Scope,
    ) -> Result<ItemLock> {
        self.schema.ensure(scope).await?;
        // Before the lease: one on an item of another tenant would hold its writers up.
        let tenant = match self.lockable(id, scope).await? {
            Some(head) => head.meta.tenant,
            None => return Err(no_item(id)),
        };
        let tenant = tenant.as_deref();
        let token = self.index.env.random.object_id().to_hex();
        let deadline = self.index.env.clock.now().plus(patience);
        while !self.try_lease(id, &token, tenant).await? {
            if self.index.env.clock.now() >= deadline {
                return Err(locked(id));
            }
            self.index.env.clock.sleep(LOOK).await;
        }
        let Some(head) = self.lockable(id, scope).await? else {
            // A writer that restores the item must not wait for a lease without a holder.
            self.give_back(id, &token).await?;
            return Err(no_item(id));
        };
        let (stop, lost) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let renewal = stop.clone().drop_guard();
        let tenant = tenant.map(str::to_owned);
        tokio::spawn(Arc::clone(self).renew(id, token.clone(), tenant, stop, Arc::clone(&lost)));
        Ok(ItemLock { locks: Arc::clone(self), id, token, seen: AtomicI64::new(head.ov), renewal, lost })
    }

    /// The head of a live item that `scope` sees.
    async fn lockable(&self, id: ItemId, scope: &Scope) -> Result<Option<Head>> {
        let head = self.index.roll_forward(id).await?;
        Ok(head.filter(|head| head.is_live() && scope.sees(head.meta.tenant.as_deref())))
    }

    async fn give_back(&self, id: ItemId, token: &str) -> Result<()> {
        let mut batch = Batch::new();
        let guard = Guard::Equals { field: "token".into(), value: token.into() };
        batch.push(&self.index.names.locks, Write::Delete { id: id.bson(), guard });
        self.index.documents.apply(batch).await.map(|_| ())
    }

    async fn try_lease(&self, id: ItemId, token: &str, tenant: Option<&str>) -> Result<bool> {
        let now = self.index.documents.now().await?;
        let mut batch = Batch::new();
        batch.push(&self.index.names.locks, Write::insert(self.lease(id, token, tenant, now)));
        if self.index.documents.apply(batch).await?.first() == Some(&Outcome::Applied) {
            return Ok(true);
        }
        let Some(current) = self.index.documents.get(&self.index.names.locks, vec![id.bson()]).await?.pop()
        else {
            return self.remove_left_lock(id, now).await.map(|()| false);
        };
        if expires(&current) > now {
            return Ok(false);
        }
        let guard = Guard::Equals {
            field: "token".into(),
            value: current.get("token").cloned().unwrap_or(bson::Bson::Null),
        };
        let mut batch = Batch::new();
        batch.push(&self.index.names.locks, Write::put(self.lease(id, token, tenant, now), guard));
        Ok(self.index.documents.apply(batch).await?.first() == Some(&Outcome::Applied))
    }

    /// The legacy library kept locks under ids of their own, at most one per item, and left those of
    /// processes that died.
    async fn remove_left_lock(&self, id: ItemId, now: Timestamp) -> Result<()> {
        let scan = Scan { filter: Filter::eq("itemId", id.bson()), limit: Some(1), ..Scan::default() };
        let found = self.index.documents.scan(&self.index.names.locks, scan).try_next().await?;
        if let Some(left) = found.filter(|left| expires(left) <= now)
            && let (Some(lock), Some(until)) = (left.get("_id"), left.get("expiresAt"))
        {
            let guard = Guard::Equals { field: "expiresAt".into(), value: until.clone() };
            let mut batch = Batch::new();
            batch.push(&self.index.names.locks, Write::Delete { id: lock.clone(), guard });
            self.index.documents.apply(batch).await?;
        }
        Ok(())
    }

    /// Renews a lease at a third of its time, until it is given back or lost.
    async fn renew(
        self: Arc<Self>,
        id: ItemId,
        token: String,
        tenant: Option<String>,
        stop: CancellationToken,
        lost: Arc<AtomicBool>,
    ) {
        let mut until = self.index.env.clock.now().plus_millis(LEASE.as_millis() as i64);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.index.env.clock.sleep(LEASE / 3) => {}
            }
            let renewed = async {
                let now = self.index.documents.now().await?;
                let guard = Guard::Equals { field: "token".into(), value: token.clone().into() };
                let mut batch = Batch::new();
                batch.push(
                    &self.index.names.locks,
                    Write::put(self.lease(id, &token, tenant.as_deref(), now), guard),
                );
                Ok::<_, Error>(self.index.documents.apply(batch).await?.first() == Some(&Outcome::Applied))
            };
            match renewed.await {
                Ok(true) => until = self.index.env.clock.now().plus_millis(LEASE.as_millis() as i64),
                Err(error) if self.index.env.clock.now() < until => {
                    tracing::warn!(item = %id, %error, "a lease could not be renewed yet")
                }
                Ok(false) | Err(_) => {
                    lost.store(true, Ordering::Release);
                    return;
                }
            }
        }
    }

    /// Waits, within bounds, until nobody but the holder of `token` has a lease on the item.
    ///
    /// # Errors
    /// `LOCKED` if another holder still has it then.
    pub(crate) async fn pass_lock(&self, id: ItemId, token: Option<&str>) -> Result<()> {
        let deadline = self.index.env.clock.now().plus_millis(TIMEOUT.as_millis() as i64);
        while self.is_locked(id, token).await? {
            if self.index.env.clock.now() >= deadline {
                return Err(locked(id));
            }
            self.index.env.clock.sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether a holder other than that of `token` has a lease on the item.
    pub(crate) async fn is_locked(&self, id: ItemId, token: Option<&str>) -> Result<bool> {
        let Some(lock) = self.reads.get(id.object_id()).await? else { return Ok(false) };
        let lock = raw_bson::decode(&lock)?;
        let mine = token.is_some_and(|token| lock.get_str("token").ok() == Some(token));
        Ok(!mine && expires(&lock) > self.index.documents.now().await?)
    }
}

fn no_item(id: ItemId) -> Error {
    Error::not_found("there is no such item to lock").on_item(id)
}

fn locked(id: ItemId) -> Error {
    Error::new(
        ErrorKind::Locked,
        "another holder has the lock of this item; it ends at the latest 30 s after it is last renewed",
    )
    .on_item(id)
}
