//! The one write path: concurrent changes of a collection are committed together.
//!
//! A version exists exactly if its row is in `<c>_ver`. Two unique indexes decide every race, `(itemId, ov)`
//! and `cv`; heads follow the rows.

mod fresh;
mod group;
pub(crate) mod transaction;

use std::collections::HashSet;
use std::sync::Arc;

use bson::oid::ObjectId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use crate::clock::Moment;
use crate::records::document::payload::Body;
use crate::records::index::RecordIndex;
use crate::records::model::{Head, ImportMark, InlineObject, ItemId, Op, Row, VersionMeta};
use crate::records::storage::flush::Flusher;
use crate::records::storage::notes::Noted;
use crate::records::storage::payload_store::PayloadStore;
use crate::records::write::watermark::{Moving, Watermark};
use crate::{Error, Result, Timestamp};

/// Groups of one collection under way at once: the next one allocates its numbers while the current one
/// commits.
const IN_FLIGHT: usize = 2;
/// Bounds of a group.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
const GROUP_OPERATIONS: usize = 512;

/// A change made ready against the head it follows; only numbers and time are missing.
pub(crate) struct Prepared {
    pub(crate) row_id: ObjectId,
    pub(crate) id: ItemId,
    pub(crate) op: Op,
    pub(crate) previous: Option<Head>,
    /// When `previous` was read, or that there is none.
    pub(crate) read_at: Moment,
    /// The document that rides in the row; none where the payload is shared with an earlier version or stored
    /// already.
    pub(crate) body: Option<Body>,
    /// Index entry, lineage and references; its payload is complete unless `body` is given.
    pub(crate) meta: VersionMeta,
    pub(crate) inline_objects: Vec<InlineObject>,
    /// What was stored before this commit, which takes place only as long as that is not condemned.
    pub(crate) uploaded: Option<Noted>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
    /// By what the change is recognised, see [`Identity`](crate::records::write::identity::Identity).
    pub(crate) operation: Option<ObjectId>,
    /// The time of an imported change.
    pub(crate) at: Option<Timestamp>,
    pub(crate) import: Option<ImportMark>,
    /// What will say what an erasure took away.
    pub(crate) certificate: Option<ObjectId>,
}

crate::debug_some!(Prepared { id, op, read_at, at });

impl Prepared {
    /// A change that says nothing yet of who, why and after what.
    pub(crate) fn blank(
        row_id: ObjectId,
        id: ItemId,
        meta: VersionMeta,
        body: Option<Body>,
        inline_objects: Vec<InlineObject>,
    ) -> Self {
        Self {
            row_id,
            id,
            op: Op::Update,
            previous: None,
            read_at: Moment::default(),
            body,
            meta,
            inline_objects,
            uploaded: None,
            actor: None,
            reason: None,
            request_id: None,
            operation: None,
            at: None,
            import: None,
            certificate: None,
        }
    }

    pub(crate) fn ov(&self) -> i64 {
        self.previous.as_ref().map_or(0, |head| head.ov + 1)
    }

    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Body::len)
            + self.inline_objects.iter().map(|r| r.bytes.len()).sum::<usize>()
            + 1024
    }
}

/// A change that took place.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) row: Row,
    pub(crate) head: Head,
}

/// Why a change did not take place.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// Another version took the place; look at the head again.
    Conflict,
    /// What was stored for it has been collected since, or is about to be; it has to be stored anew.
    Condemned,
    /// It failed; where it is not known whether it was written, the message says so.
    Failed(Error),
}

struct PendingCommit {
    prepared: Prepared,
    /// How often its head was too old when it had its number.
    delays: u32,
    reply: oneshot::Sender<Result<Committed, CommitError>>,
}

crate::debug_some!(PendingCommit {});

/// Changes that wait for their group.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    state: Mutex<QueueState>,
    idle: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: Vec<PendingCommit>,
    in_flight: usize,
    /// Transactions under way that write this collection among others.
    transactions: usize,
    /// A group is about to be taken; a write that comes now joins it.
    gathering: bool,
}

impl CommitQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.in_flight == 0 && state.transactions == 0 && state.waiting.is_empty()
    }

    /// Nothing can be committed any more: callers hear that their writes were given up.
    fn abandon(&self) {
        self.lock().waiting.clear();
        self.idle.notify_waiters();
    }
}

impl QueueState {
    /// The next group: one change per item, bounded; the others keep their order.
    fn take_group(&mut self) -> Vec<PendingCommit> {
        let (mut bytes, mut items) = (0, HashSet::new());
        let mut group = Vec::new();
        let mut rest = Vec::new();
        for member in self.waiting.drain(..) {
            let size = member.prepared.bytes();
            let fits = group.is_empty() || (bytes + size <= GROUP_BYTES && group.len() < GROUP_OPERATIONS);
            if fits && items.insert(member.prepared.id) {
                bytes += size;
                group.push(member);
            } else {
                rest.push(member);
            }
        }
        self.waiting = rest;
        group
    }
}

/// Commits the changes of one collection, in groups.
pub(crate) struct Committer {
    index: Arc<RecordIndex>,
    payloads: Arc<PayloadStore>,
    watermark: Arc<Watermark>,
    flusher: Arc<Flusher>,
    queue: CommitQueue,
}

impl Committer {
    pub(crate) fn new(
        index: Arc<RecordIndex>,
        payloads: Arc<PayloadStore>,
        watermark: Arc<Watermark>,
        flusher: Arc<Flusher>,
    ) -> Self {
        Self { index, payloads, watermark, flusher, queue: CommitQueue::default() }
    }

    /// Whether no change waits or is under way, and the mark is not being moved.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_idle() && !self.watermark.is_moving()
    }

    /// Returns when it [is idle](Self::is_idle).
    pub(crate) async fn drained(&self) {
        loop {
            let mut idle = std::pin::pin!(self.queue.idle.notified());
            let mut rested = std::pin::pin!(self.watermark.rested.notified());
            // From here on, not from their first poll on.
            idle.as_mut().enable();
            rested.as_mut().enable();
            if self.is_idle() {
                return;
            }
            futures::future::select(idle, rested).await;
        }
    }

    /// Commits a change in the next group.
    pub(crate) async fn commit(self: &Arc<Self>, prepared: Prepared) -> Result<Committed, CommitError> {
        let (reply, answer) = oneshot::channel();
        self.queue.lock().waiting.push(PendingCommit { prepared, delays: 0, reply });
        self.dispatch();
        answer.await.unwrap_or_else(|_| {
            let message = "the write was given up, by a panic or the end of the runtime; whether it took place shows in the item's history";
            Err(CommitError::Failed(Error::database(message).undecided()))
        })
    }

    fn dispatch(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.queue.abandon() };
        {
            let mut state = self.queue.lock();
            if state.gathering || state.in_flight >= IN_FLIGHT || state.waiting.is_empty() {
                return;
            }
            state.gathering = true;
            state.in_flight += 1;
        }
        let mut place = Slot { committer: Arc::clone(self), gathered: false };
        // Owned by the queue: `drained` waits for it. It goes on if its callers give up, so that none leaves
        // a number without a row.
        runtime.spawn(async move {
            // A writer that was woken together with this one gets the chance to join the group.
            tokio::task::yield_now().await;
            let group = place.gather();
            // What did not fit.
            place.committer.dispatch();
            let committer = Arc::clone(&place.committer);
            let (again, settled) = committer.commit_group(group).await;
            committer.queue.lock().waiting.splice(0..0, again);
            let moving = settled.and_then(|numbers| Moving::begin(&committer.watermark, numbers));
            // The next group need not wait for the mark.
            drop(place);
            if let Some(moving) = moving {
                moving.advance_watermark().await;
            }
        });
    }
}

/// A transaction that writes this collection among others: until it ends, the collection is not idle.
struct Participation(Arc<Committer>);

impl Participation {
    fn begin(committer: &Arc<Committer>) -> Self {
        committer.queue.lock().transactions += 1;
        Self(Arc::clone(committer))
    }
}

impl Drop for Participation {
    fn drop(&mut self) {
        self.0.queue.lock().transactions -= 1;
        self.0.queue.idle.notify_waiters();
    }
}

/// One of the places for groups under way, given back whatever becomes of the group: a panic must not leave
/// the collection with one less.
struct Slot {
    committer: Arc<Committer>,
    gathered: bool,
}

impl Slot {
    fn gather(&mut self) -> Vec<PendingCommit> {
        let mut state = self.committer.queue.lock();
        state.gathering = false;
        self.gathered = true;
        state.take_group()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.committer.queue.lock();
            state.in_flight -= 1;
            if !self.gathered {
                // The runtime ends, or it would have been polled: no other task would be either. The callers
                // hear that their writes were given up.
                state.gathering = false;
                state.waiting.clear();
            }
        }
        self.committer.queue.idle.notify_waiters();
        self.committer.dispatch();
    }
}
