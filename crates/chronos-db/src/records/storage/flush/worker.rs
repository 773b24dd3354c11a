//! The worker: takes what waits, puts several objects at once, and writes down in groups what is stored.
//!
//! No version waits for another one: a put that hangs or fails keeps one of the places, and what failed is
//! tried again alone, later.

use super::storer::Storer;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures::FutureExt as _;
use tokio::task::{Id, JoinError, JoinSet};

use super::queue::Permit;
use super::version::{Entry, Version};
use crate::clock::steady_now;
use crate::records::model::{ItemId, Op};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Puts under way at once, and how many of them may be further tries of versions that failed, and of versions
/// that others left. The rest is for those of this process, even if all others hang.
const PUTS: usize = 16;
pub(super) const RETRIES: usize = 4;

const OTHERS: usize = 8;
/// Bytes of others' versions that are put at once. (Those of this process are bounded where they wait.)
const OTHERS_BYTES: usize = 16 * 1024 * 1024;

/// Puts of an item that are under way.
#[derive(Default)]
pub(super) struct Busy {
    puts: usize,
    erasing: bool,
}

pub(super) type Position = (Timestamp, ObjectId);
type Recorded = Result<(), Error>;

/// Where a version failed.
#[derive(Clone, Copy)]
enum Step {
    Put,
    Record,
}

/// Writes down that these versions are stored. One that the database refuses for good does not hold up the
/// others.
async fn record(storer: &Arc<Storer>, group: Vec<Version>) -> Vec<(Entry, Recorded)> {
    let entries: Vec<Entry> = group.iter().map(|version| version.entry).collect();
    let each = match storer.record_group(group.iter()).await {
        Err(error) if !error.is_retryable() && group.len() > 1 => {
            let mut each = Vec::with_capacity(group.len());
            for version in &group {
                each.push(storer.record_group(std::iter::once(version)).await);
            }
            each
        }
        result => vec![result; group.len()],
    };
    entries.into_iter().zip(each).collect()
}

pub(crate) struct Worker {
    pub(super) storer: Arc<Storer>,
    pub(super) puts: JoinSet<(Version, Result<()>)>,
    /// What is under way, from its taking until it is written down.
    pub(super) active: HashMap<ObjectId, Entry>,
    pub(super) tasks: HashMap<Id, Entry>,
    pub(super) items: HashMap<ItemId, Busy>,
    pub(super) retries: HashSet<ObjectId>,
    /// Versions of items whose erasure is under way, and erasures of items with puts under way.
    pub(super) deferred: VecDeque<Version>,
    /// Rows read back, not begun yet.
    pub(super) read: VecDeque<Version>,
    pub(super) stored: Vec<Version>,
    pub(super) recording: JoinSet<Vec<(Entry, Recorded)>>,
    pub(super) being_recorded: Vec<Entry>,
    /// How far the rows that others left have been gone through.
    pub(super) passed: Option<Position>,
    /// The way through them ended at the oldest of this process's own; it goes on when there are none.
    pub(super) ended_early: bool,
    pub(super) turn: u64,
}

/// Starts the worker of a collection. It ends by itself when nothing is left to do.
pub(crate) fn start(storer: &Arc<Storer>) -> tokio::task::JoinHandle<()> {
    let storer = Arc::clone(storer);
    tokio::spawn(async move {
        let mut running = Running { storer: Arc::clone(&storer), ended: false };
        loop {
            let mut worker = Worker::new(Arc::clone(&storer));
            let Err(panic) = AssertUnwindSafe(worker.run()).catch_unwind().await else { break };
            drop(worker);
            let error = Error::database(format!("the flusher panicked: {}", words(&*panic))).retryable();
            tracing::error!(collection = %storer.index.names.collection, %error, "the flusher begins anew");
            let now = steady_now(&*storer.index.env.clock);
            let mut work = storer.queue.lock();
            work.take_back();
            work.database_failed(error, now);
        }
        // It has said so itself, and another one may have begun.
        running.ended = true;
        storer.queue.changed.notify_waiters();
    })
}

/// If the worker is ended from outside, the next write starts another one.
struct Running {
    storer: Arc<Storer>,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        {
            let mut work = self.storer.queue.lock();
            work.running = false;
            work.take_back();
            // They hear that nobody stores their versions any more.
            drop(work.all_waiters());
        }
        self.storer.queue.changed.notify_waiters();
    }
}

impl Worker {
    fn new(storer: Arc<Storer>) -> Self {
        Self {
            storer,
            puts: JoinSet::new(),
            active: HashMap::new(),
            tasks: HashMap::new(),
            items: HashMap::new(),
            retries: HashSet::new(),
            deferred: VecDeque::new(),
            read: VecDeque::new(),
            stored: Vec::new(),
            recording: JoinSet::new(),
            being_recorded: Vec::new(),
            passed: None,
            ended_early: false,
            turn: 0,
        }
    }

    pub(super) fn has_room_for_others(&self) -> bool {
        let others = self.tasks.values().filter(|entry| !entry.own && !self.retries.contains(&entry.row_id));
        let (count, bytes) = others.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes));
        count < OTHERS && bytes < OTHERS_BYTES
    }

    pub(super) fn now(&self) -> Timestamp {
        steady_now(&*self.storer.index.env.clock)
    }

    async fn run(&mut self) {
        loop {
            let filled = self.fill().await;
            if let Err(error) = filled {
                self.database_failed(error);
            }
            self.record();
            let Some(until) = self.rest() else { return };
            let storer = Arc::clone(&self.storer);
            let wake = async {
                match until {
                    Some(until) => {
                        let left = until.as_millis() - steady_now(&*storer.index.env.clock).as_millis();
                        storer.index.env.clock.sleep(Duration::from_millis(left.max(0).unsigned_abs())).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // There is one at most, so it takes no turn from the puts.
                Some(recorded) = self.recording.join_next() => self.recorded(recorded),
                Some(ended) = self.puts.join_next_with_id() => self.put_ended(ended),
                () = storer.queue.kick.notified() => {}
                () = wake => {}
            }
            while let Some(ended) = self.puts.try_join_next_with_id() {
                self.put_ended(ended);
            }
        }
    }

    /// Until when there is nothing to do but wait for what is under way (without end, if nothing else comes);
    /// none if the work is at its end.
    fn rest(&self) -> Option<Option<Timestamp>> {
        let under_way = !self.puts.is_empty() || !self.recording.is_empty();
        let mut work = self.storer.queue.lock();
        if work.stopped && !under_way {
            work.take_back();
            work.running = false;
            return None;
        }
        let now = self.now();
        match work.permit(now, self.puts.len()) {
            Permit::Paused(until) | Permit::Probing(until) if !work.stopped => return Some(Some(until)),
            Permit::Go if self.puts.len() < PUTS && self.deferred.len() < PUTS && !work.stopped => {}
            _ => return Some(None),
        }
        let room = self.has_room_for_others();
        if work.has_queued(now)
            || work.spilled().is_some()
            || self.read.front().is_some_and(|version| version.entry.own || room)
        {
            // A pause has ended just now.
            return Some(Some(now));
        }
        let due = work.next_due().filter(|_| self.retries.len() < RETRIES);
        let next = due.into_iter().chain(work.look_at().filter(|_| room)).chain(work.gathers(now)).min();
        if next.is_none() && !under_way {
            work.running = false;
            return None;
        }
        Some(next)
    }

    /// Begins as many puts as there are places.
    async fn fill(&mut self) -> Result<()> {
        self.begin_deferred();
        while self.puts.len() < PUTS && self.deferred.len() < PUTS {
            let now = self.now();
            {
                let mut work = self.storer.queue.lock();
                if work.stopped || work.permit(now, self.puts.len()) != Permit::Go {
                    return Ok(());
                }
            }
            let Some(version) = self.take(now).await? else { return Ok(()) };
            self.turn += 1;
            self.begin(version);
        }
        Ok(())
    }

    /// Begins what was deferred, as far as it can begin now. Each waits for those of its item before it, never for those
    /// behind it.
    fn begin_deferred(&mut self) {
        for version in std::mem::take(&mut self.deferred) {
            self.begin(version);
        }
    }

    fn begin(&mut self, version: Version) {
        self.active.insert(version.entry.row_id, version.entry);
        let erases = version.row().op == Op::Erase;
        // An erasure comes last: a payload of the same item that is put beside it would outlive it.
        let waits = |other: &Version| other.entry.id == version.entry.id;
        let busy = self.items.entry(version.entry.id).or_default();
        if busy.erasing || (erases && busy.puts > 0) || self.deferred.iter().any(waits) {
            self.deferred.push_back(version);
            return;
        }
        busy.puts += 1;
        busy.erasing = erases;
        let (storer, entry) = (Arc::clone(&self.storer), version.entry);
        let task = self.puts.spawn(async move {
            let mut version = version;
            let put = storer.put_objects(version.row()).await;
            version.strip();
            (version, put)
        });
        self.tasks.insert(task.id(), entry);
    }

    fn put_ended(&mut self, ended: Result<(Id, (Version, Result<()>)), JoinError>) {
        let (task, done) = match ended {
            Ok((task, done)) => (task, Ok(done)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(entry) = self.tasks.remove(&task) else { return };
        if let Some(busy) = self.items.get_mut(&entry.id) {
            busy.puts -= 1;
            busy.erasing = false;
            if busy.puts == 0 {
                self.items.remove(&entry.id);
            }
        }
        self.storer.queue.lock().release(&entry);
        match done {
            Ok((mut version, Ok(()))) => {
                self.storer.queue.lock().storage_works();
                version.entry.forget_weight();
                self.stored.push(version);
            }
            Ok((_, Err(error))) => self.failed(entry, error, Step::Put),
            Err(panic) => {
                let error = Error::storage(format!("storing the version panicked: {}", panic_words(panic)))
                    .retryable();
                self.failed(entry, error, Step::Put);
            }
        }
    }

    /// The version waits alone from now on.
    fn failed(&mut self, mut entry: Entry, error: Error, at: Step) {
        entry.forget_weight();
        self.active.remove(&entry.row_id);
        self.retries.remove(&entry.row_id);
        let now = self.now();
        let (collection, id, ov) = (&self.storer.index.names.collection, entry.id, entry.ov);
        tracing::warn!(%collection, item = %id, ov, %error, "a version waits to be stored");
        let unheard = {
            let mut work = self.storer.queue.lock();
            work.failed(entry, error.clone(), now);
            match at {
                // An erasure needs the database, too, and says nothing of the storage then.
                Step::Put if error.kind() == ErrorKind::Database => {}
                Step::Put => work.storage_failed(&error, now),
                Step::Record => work.database_failed(error.clone(), now),
            }
            if work.outage().is_some() { work.all_waiters() } else { Vec::new() }
        };
        self.storer.queue.answer(entry.row_id, &Err(error.clone()));
        for waiter in unheard {
            let _ = waiter.send(Err(error.clone()));
        }
        self.storer.queue.changed.notify_waiters();
    }

    fn database_failed(&mut self, error: Error) {
        tracing::warn!(collection = %self.storer.index.names.collection, %error, "the flusher cannot read or write rows");
        let now = self.now();
        let unheard = {
            let mut work = self.storer.queue.lock();
            work.database_failed(error.clone(), now);
            work.all_waiters()
        };
        for waiter in unheard {
            let _ = waiter.send(Err(error.clone()));
        }
        self.storer.queue.changed.notify_waiters();
    }

    /// Writes down what is stored: when a group is complete, when a caller waits for it, or when there is
    /// nothing else to wait for.
    fn record(&mut self) {
        if self.stored.is_empty() || !self.recording.is_empty() {
            return;
        }
        let waited_for = {
            let work = self.storer.queue.lock();
            self.puts.len() < PUTS || self.stored.iter().any(|version| work.has_waiter(version.entry.row_id))
        };
        if self.stored.len() < self.storer.batch_size() && !waited_for {
            return;
        }
        let group = std::mem::take(&mut self.stored);
        self.being_recorded = group.iter().map(|version| version.entry).collect();
        let storer = Arc::clone(&self.storer);
        self.recording.spawn(async move { record(&storer, group).await });
    }

    fn recorded(&mut self, recorded: Result<Vec<(Entry, Recorded)>, JoinError>) {
        let group = std::mem::take(&mut self.being_recorded);
        let group = recorded.unwrap_or_else(|panic| {
            let words = panic_words(panic);
            let error = Error::database(format!("writing down what is stored panicked: {words}")).retryable();
            group.into_iter().map(|entry| (entry, Err(error.clone()))).collect()
        });
        for (entry, result) in group {
            match result {
                Ok(()) => {
                    let now = self.storer.index.env.clock.now();
                    let lag = now.as_millis().saturating_sub(entry.since.as_millis());
                    let lag = Duration::from_millis(lag.max(0).unsigned_abs());
                    self.storer.index.env.telemetry.flushed(lag);
                    self.active.remove(&entry.row_id);
                    self.retries.remove(&entry.row_id);
                    {
                        let mut work = self.storer.queue.lock();
                        work.database_works();
                        work.finished(&entry);
                    }
                    self.storer.queue.answer(entry.row_id, &Ok(()));
                }
                Err(error) => self.failed(entry, error, Step::Record),
            }
        }
        self.storer.queue.changed.notify_waiters();
    }
}

fn panic_words(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => words(&*panic),
        Err(cancelled) => cancelled.to_string(),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}
