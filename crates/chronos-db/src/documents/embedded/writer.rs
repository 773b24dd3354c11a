//! The one writer of a file: takes what is queued, commits it together, then answers everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::catalog::Session;
use super::connection;
use super::error::SqliteError;
use super::location::Location;
use super::write::Prepared;
use crate::documents::{BuildBatch, Index, Namespace, Numbered, Outcome, Sequence};
use crate::{Env, Error, Result, Timestamp};

/// Requests that wait for the writer at most; who comes then waits for room.
pub(super) const QUEUE: usize = 1024;

/// Requests and bytes that are committed together at most.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Something for the writer to do.
pub(super) enum Work {
    Apply(Prepared),
    Sequence {
        namespace: Namespace,
        name: String,
        count: u32,
        build: Option<BuildBatch>,
    },
    Ensure {
        namespace: Namespace,
        indexes: Vec<Index>,
    },
    /// Leave no byte of what was removed in the write-ahead log.
    Purge,
    /// And none in the file.
    Scrub,
    /// The last request: what is queued before and with it is still done.
    Stop,
}

impl Work {
    fn bytes(&self) -> usize {
        if let Self::Apply(batch) = self { batch.bytes } else { 0 }
    }

    /// Whether it is committed with nothing else, because it may change tables or nothing can follow it.
    fn stands_alone(&self) -> bool {
        matches!(self, Self::Ensure { .. } | Self::Purge | Self::Scrub | Self::Stop)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct CommitOutcome {
    pub(super) sequence: Option<Sequence>,
    pub(super) outcomes: Vec<Outcome>,
}

pub(super) struct Request {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<CommitOutcome>>,
}

/// The store's time: the clock's, but never going back.
#[derive(Debug, Default)]
pub(super) struct StoreClock(AtomicI64);

impl StoreClock {
    pub(super) fn now(&self, env: &Env) -> Timestamp {
        let now = env.clock.now().as_millis();
        Timestamp::from_millis(self.0.fetch_max(now, Ordering::AcqRel).max(now))
    }
}

/// The writing connection.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) session: Session,
    location: Location,
    env: Env,
    clock: Arc<StoreClock>,
    /// Whether temporary data goes to files.
    sorts: bool,
}

/// The failure of a whole transaction, and what was being done.
struct Failed {
    error: SqliteError,
    doing: &'static str,
}

impl Failed {
    fn while_doing(doing: &'static str, error: impl Into<SqliteError>) -> Self {
        Self { error: error.into(), doing }
    }
}

impl Writer {
    pub(super) fn new(session: Session, location: Location, env: Env, clock: Arc<StoreClock>) -> Self {
        Self { session, location, env, clock, sorts: false }
    }

    /// Serves the queue until it is stopped or everybody who could ask is gone; then what is left in it.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut held = None;
        while let Some(first) = held.take().or_else(|| queue.blocking_recv()) {
            if matches!(first.work, Work::Stop) {
                queue.close();
                // Nobody waits for a stop that was given up.
                let _ = first.reply.send(Ok(CommitOutcome { sequence: None, outcomes: Vec::new() }));
                continue;
            }
            if matches!(first.work, Work::Purge | Work::Scrub) {
                let scrubs = matches!(first.work, Work::Scrub);
                let purged = if scrubs { self.scrub() } else { self.purge() };
                // A caller that went away doesn't want to know.
                let _ = first.reply.send(purged);
                continue;
            }
            let mut bytes = first.work.bytes();
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES && !group[0].work.stands_alone() {
                let Ok(next) = queue.try_recv() else { break };
                if next.work.stands_alone() {
                    held = Some(next);
                    break;
                }
                bytes += next.work.bytes();
                group.push(next);
            }
            for (reply, done) in self.commit(group) {
                // A caller that went away doesn't want to know.
                let _ = reply.send(done);
            }
        }
    }

    /// Writes the file anew, then empties the log.
    fn scrub(&mut self) -> Result<CommitOutcome> {
        // The copy it is made from may be larger than memory.
        self.sorts = true;
        self.session
            .connection
            .execute_batch("PRAGMA temp_store=DEFAULT; VACUUM")
            .map_err(|error| SqliteError::from(error).into_error(&self.location, "writing the file anew"))?;
        self.purge()
    }

    /// Takes everything out of the write-ahead log, which needs a moment at which nobody reads from it; reads
    /// are short.
    fn purge(&mut self) -> Result<CommitOutcome> {
        let done = || Ok(CommitOutcome { sequence: None, outcomes: Vec::new() });
        // Of several that were asked for together one does.
        if !self.has_log() {
            return done();
        }
        // While it waits for readers nobody can write to the file.
        let emptied = connection::at_once(&mut self.session.connection, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        match emptied {
            Ok(0) => done(),
            Ok(_) => Err(Error::database(format!(
                "a reader holds the embedded store {} open for so long that its log cannot be emptied",
                self.location
            ))
            .retryable()),
            Err(error) => Err(SqliteError::from(error).into_error(&self.location, "emptying the log")),
        }
    }

    /// Whether there is anything in the write-ahead log, by whichever process: another one may have removed what is to
    /// leave no byte.
    fn has_log(&self) -> bool {
        let Some(file) = self.session.connection.path() else { return false };
        match std::fs::metadata(format!("{file}-wal")) {
            Ok(log) => log.len() > 0,
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Carries out one request by itself.
    pub(super) fn commit_one(&mut self, work: Work) -> Result<CommitOutcome> {
        let (reply, _) = oneshot::channel();
        let mut done = self.commit(vec![Request { work, reply }]);
        done.pop().map_or_else(|| Err(Error::database("the request was lost")), |(_, done)| done)
    }

    /// Carries out a group in one transaction. A request that fails leaves nothing behind and the others
    /// alone.
    fn commit(
        &mut self,
        group: Vec<Request>,
    ) -> Vec<(oneshot::Sender<Result<CommitOutcome>>, Result<CommitOutcome>)> {
        let mut replies = Vec::with_capacity(group.len());
        let mut results = Vec::with_capacity(group.len());
        let mut works = Vec::with_capacity(group.len());
        for request in group {
            replies.push(request.reply);
            works.push(request.work);
        }
        let ended = self.transaction(works, &mut results);
        match ended {
            Ok(()) => replies.into_iter().zip(results).collect(),
            Err(Failed { error, doing }) => {
                // The first failure is what the callers need to hear of; that a rollback also fails adds
                // nothing: the connection is then without a transaction already.
                let rolled_back = self.session.roll_back();
                if let Err(second) = rolled_back {
                    tracing::warn!(location = %self.location, error = %second.into_error(&self.location, "rolling back"), "rollback failed");
                }
                replies
                    .into_iter()
                    .map(|reply| (reply, Err(error.clone().into_error(&self.location, doing))))
                    .collect()
            }
        }
    }

    /// Fills `results`; if it fails, the whole group has failed.
    fn transaction(
        &mut self,
        works: Vec<Work>,
        results: &mut Vec<Result<CommitOutcome>>,
    ) -> Result<(), Failed> {
        // Small things are kept in memory; an index is built by sorting, which memory may be too small for.
        let sorts = works.iter().any(Work::stands_alone);
        if sorts != self.sorts {
            let storage = if sorts { "DEFAULT" } else { "MEMORY" };
            let set = self.session.connection.execute_batch(&format!("PRAGMA temp_store={storage}"));
            set.map_err(|e| {
                Failed::while_doing("setting the place of temporary data (nothing was written)", e)
            })?;
            self.sorts = sorts;
        }
        self.session
            .begin("BEGIN IMMEDIATE")
            .map_err(|e| Failed::while_doing("beginning to write (nothing was written)", e))?;
        for work in works {
            let done = self.take(work);
            if self.session.connection.is_autocommit() {
                let lost = || Error::database("SQLite ended the transaction; nothing was written").into();
                return Err(Failed {
                    error: done.err().unwrap_or_else(lost),
                    doing: "writing (nothing was written)",
                });
            }
            results.push(done.map_err(|error| {
                error.into_error(&self.location, "writing (nothing of this request was written)")
            }));
        }
        let fail = &self.env.fail;
        fail.hit("embedded.before_commit").map_err(|e| Failed::while_doing("committing", e))?;
        let committed =
            self.session.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        committed
            .map_err(|e| Failed::while_doing("committing (whether the writes took place is unknown)", e))?;
        fail.hit("embedded.after_commit").map_err(|e| Failed::while_doing("committing", e))
    }

    fn take(&mut self, work: Work) -> Result<CommitOutcome, SqliteError> {
        let now = self.clock.now(&self.env);
        match work {
            Work::Apply(batch) => {
                let outcomes = if batch.is_single() {
                    self.session.apply(&batch)?
                } else {
                    self.session.within_savepoint(|session| session.apply(&batch))?
                };
                Ok(CommitOutcome { sequence: None, outcomes })
            }
            Work::Sequence { namespace, name, count, build } => {
                let Numbered { sequence, outcomes } = self
                    .session
                    .within_savepoint(|session| session.sequence(&namespace, &name, count, now, build))?;
                Ok(CommitOutcome { sequence: Some(sequence), outcomes })
            }
            Work::Ensure { namespace, indexes } => {
                self.session.within_savepoint(|session| session.ensure(&namespace, &indexes))?;
                Ok(CommitOutcome { sequence: None, outcomes: Vec::new() })
            }
            // Neither is a part of a transaction.
            Work::Purge | Work::Scrub | Work::Stop => {
                Ok(CommitOutcome { sequence: None, outcomes: Vec::new() })
            }
        }
    }
}
