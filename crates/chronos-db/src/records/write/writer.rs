//! From a change to its committed version: read the head, make the change ready, commit, and start over where
//! another was faster.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::call::WriteCall;
use super::change::Change;
use super::commit::{CommitError, Committed, Committer, Prepared};
use super::keyed_mutex::KeyedMutex;
use super::lock::{ItemLock, Locks};
use super::outcome::WriteOutcome;
use super::ready::{Attempt, Uploading, Uploads};
use super::schema::Schema;
use crate::clock::Moment;
use crate::records::index::RecordIndex;
use crate::records::model::Head;
use crate::records::read::Reader;
use crate::records::storage::flush::Flusher;
use crate::records::storage::payload_store::PayloadStore;
use crate::records::versions::Versions;
use crate::{Error, ErrorKind, Result};

/// Attempts of a write without an expected version. Writers of one process take turns, so this many losses in
/// a row mean that others never stop.
const ATTEMPTS: u32 = 100;

/// What a change finds when its turn comes.
enum CurrentHead {
    Nothing,
    Head(Box<Head>),
    /// Another holder has the item's lock.
    Locked,
}

/// Carries out changes of single items.
pub(crate) struct Writer {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) versions: Arc<Versions>,
    /// Writers of one item in this process take turns, since only one of them could win anyway.
    pub(crate) turns: KeyedMutex,
    /// Unique keys of smart inserts whose index is there.
    pub(crate) unique_indexes: Mutex<HashSet<String>>,
}

impl Writer {
    /// Carries out one change, if the caller's scope sees its item.
    pub(crate) async fn write(self: &Arc<Self>, call: WriteCall<'_>) -> Result<WriteOutcome> {
        let (name, collection) = (call.options.name_of(call.change), &self.index.names.collection);
        let done = self.write_unnamed(call).await;
        let done = done.map_err(|e| e.during(name).in_collection(collection).on_item(call.id))?;
        if let (true, WriteOutcome::Committed(committed)) = (call.options.stored, &done) {
            self.flusher.stored(&committed.row).await?;
        }
        Ok(done)
    }

    async fn write_unnamed(self: &Arc<Self>, call: WriteCall<'_>) -> Result<WriteOutcome> {
        self.schema.ensure(call.scope).await?;
        let mut uploads = Uploads::default();
        let done = self.attempts(call, &mut uploads).await;
        let meta = match &done {
            Ok(WriteOutcome::Committed(committed)) => Some(&committed.row.meta),
            _ => None,
        };
        self.end_uploads(uploads, meta).await;
        done
    }

    async fn attempts(self: &Arc<Self>, call: WriteCall<'_>, uploads: &mut Uploads) -> Result<WriteOutcome> {
        let mut turn = self.turns.take(call.id).await;
        for _ in 0..ATTEMPTS {
            let read_at = Moment::now(&*self.index.env.clock);
            let head = match self.current_head(call).await? {
                CurrentHead::Head(head) => Some(*head),
                CurrentHead::Nothing => None,
                CurrentHead::Locked => {
                    // Not while holding the turn: the lock's holder may be waiting for it.
                    drop(turn);
                    self.locks.pass_lock(call.id, call.token()).await?;
                    turn = self.turns.take(call.id).await;
                    continue;
                }
            };
            let attempt = Attempt { head: head.as_ref(), read_at, place: uploads.place() };
            let Some(mut ready) = self.prepare_change(call, attempt).await? else {
                return Ok(WriteOutcome::Unchanged(Box::new(
                    head.ok_or_else(|| Error::database("a creation always changes something"))?,
                )));
            };
            match self.upload(&mut ready, uploads).await? {
                Uploading::Nothing => {}
                Uploading::Anew => {
                    self.end_uploads(std::mem::take(uploads), None).await;
                    continue;
                }
                // That took its time: another version would be noticed only by the commit, after a number was
                // spent.
                Uploading::Done | Uploading::There => {
                    let read_at = Moment::now(&*self.index.env.clock);
                    match (&head, self.index.head_or_row(call.id).await?) {
                        (None, None) => {}
                        (Some(head), Some(now)) if now.is_same(head) => {}
                        (None, Some(_)) => return Err(exists()),
                        (Some(_), _) => continue,
                    }
                    ready.prepared.read_at = read_at;
                }
            }
            if let Some(committed) = self.commit(call, ready.prepared, uploads).await? {
                return Ok(WriteOutcome::Committed(Box::new(committed)));
            }
        }
        drop(turn);
        Err(Error::new(
            ErrorKind::OptimisticLock,
            format!("{ATTEMPTS} attempts met other writers each time; try again later"),
        )
        .retryable())
    }

    /// The head that the change follows.
    async fn current_head(&self, call: WriteCall<'_>) -> Result<CurrentHead> {
        if matches!(call.change, Change::Create { .. }) {
            // Nobody can know the id of an item that is being created.
            return Ok(CurrentHead::Nothing);
        }
        let expected = call.lock.map(ItemLock::ov).or(call.options.expected_ov);
        let head = self.index.head_or_row(call.id);
        let locked = self.locks.is_locked(call.id, call.token());
        let (head, locked) = futures::future::try_join(head, locked).await?;
        // What others have or hold is nobody else's to know.
        let head = head.filter(|head| call.scope.sees(head.meta.tenant.as_deref()));
        if locked && head.is_some() {
            return Ok(CurrentHead::Locked);
        }
        self.changeable(call, head, expected).map(|head| CurrentHead::Head(Box::new(head)))
    }

    /// Commits; none if the write has to begin anew.
    async fn commit(
        &self,
        call: WriteCall<'_>,
        prepared: Prepared,
        uploads: &mut Uploads,
    ) -> Result<Option<Committed>> {
        uploads.open = true;
        let identity = call.options.identity.as_deref();
        if let Some(identity) = identity {
            identity.begin(prepared.ov() - 1);
        }
        match self.committer.commit(prepared).await {
            Ok(committed) => {
                uploads.open = false;
                if let Some(identity) = identity {
                    identity.commit();
                }
                if let Some(lock) = call.lock {
                    lock.seen.store(committed.row.ov, Ordering::Release);
                }
                Ok(Some(committed))
            }
            // Whether it took place may not be known: what was stored stays for the collector.
            Err(CommitError::Failed(error)) => Err(error),
            Err(CommitError::Condemned) => {
                uploads.open = false;
                self.end_uploads(std::mem::take(uploads), None).await;
                Ok(None)
            }
            Err(CommitError::Conflict) => {
                uploads.open = false;
                self.index.roll_forward(call.id).await?;
                // Ids are given out once; only a claimed one (see `smart_insert`) can be taken.
                if matches!(call.change, Change::Create { .. }) { Err(exists()) } else { Ok(None) }
            }
        }
    }

    /// The head, if the change may follow it.
    fn changeable(&self, call: WriteCall<'_>, head: Option<Head>, expected: Option<i64>) -> Result<Head> {
        let head =
            head.filter(|head| !head.erased).ok_or_else(|| Error::not_found("there is no such item"))?;
        if let Some(expected) = expected.filter(|expected| *expected != head.ov)
            && !self.index.env.fail.skips("guard.expected")
        {
            let message = format!(
                "version {expected} was expected, but the item is at version {}: read it and decide again",
                head.ov
            );
            return Err(Error::new(ErrorKind::OptimisticLock, message).at_version(head.ov));
        }
        let may_be_deleted =
            matches!(call.change, Change::Restore { .. }) || call.options.certificate.is_some();
        if head.deleted_at.is_some() && !may_be_deleted {
            return Err(Error::not_found("the item is deleted; restore brings it back").at_version(head.ov));
        }
        Ok(head)
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::OptimisticLock, "the item exists already")
}
