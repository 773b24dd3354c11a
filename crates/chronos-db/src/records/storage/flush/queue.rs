//! What waits to be stored, as far as this process knows of it: one state a collection, shared by writers,
//! the worker and those that wait.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bson::oid::ObjectId;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::report::FailingVersion;
use super::version::{Entry, Version};
use crate::config::WriteOptimization;
use crate::{Error, Timestamp};

/// Memory for this process's versions that wait, with everything that belongs to them. What comes when it is
/// full is read back from its row.
pub(crate) const MEMORY_BYTES: usize = 32 * 1024 * 1024;

/// Versions of which it is known when they are tried again. Of more, only that they exist: they are met again
/// when the rows are next gone through.
const MAX_FAILING: usize = 1_024;
/// How many different versions have to fail in a row, with none stored in between, to be an outage.
const OUTAGE: u32 = 16;
/// Tries at the end of a pause.
const PROBES: usize = 4;
/// The first wait before a version, or a store, is tried again; each following one is twice as long.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait of a version, and of a store that is down.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) type Waiter = oneshot::Sender<Result<(), Error>>;

/// The queue of one collection.
#[derive(Default)]
pub(crate) struct FlushQueue {
    work: Mutex<Work>,
    /// For the worker: there is something to do.
    pub(crate) kick: Notify,
    /// For those that wait: something has changed.
    pub(crate) changed: Notify,
}

impl fmt::Debug for FlushQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = self.lock();
        f.debug_struct("FlushQueue")
            .field("own", &work.own())
            .field("failing", &work.failing.len())
            .finish_non_exhaustive()
    }
}

impl FlushQueue {
    pub(crate) fn new(writes: &WriteOptimization) -> Self {
        let batch = Batch { window: writes.batch_window, enough: writes.batch_size as usize };
        Self { work: Mutex::new(Work { batch, ..Work::default() }), ..Self::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock()
    }

    /// What is left goes into rows alone: the worker ends after what it has begun, and nobody waits any
    /// longer.
    pub(crate) fn stop(&self) {
        {
            let mut work = self.lock();
            work.stopped = true;
            work.waiters.clear();
        }
        self.kick.notify_one();
        self.changed.notify_waiters();
    }

    pub(crate) fn answer(&self, row: ObjectId, result: &Result<(), Error>) {
        let waiters = self.lock().waiters.remove(&row).unwrap_or_default();
        for (_, waiter) in waiters {
            // Fails if nobody waits any more.
            let _ = waiter.send(result.clone());
        }
    }
}

/// A version that could not be stored.
pub(crate) struct Failing {
    pub(crate) entry: Entry,
    tries: u32,
    next: Timestamp,
    trying: bool,
    error: Error,
}

/// This process's versions that are in their rows alone: all from a time on to a time, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spilled {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) count: u64,
    /// Rows up to here have been read back.
    pub(crate) after: Option<(Timestamp, ObjectId)>,
    /// The oldest of those that came since reading back began.
    came: Option<Timestamp>,
}

/// A store that is down is tried again at the end of each pause, by some versions, not by all.
struct Pause {
    wait: Duration,
    until: Timestamp,
    probes: usize,
    error: Error,
}

impl Pause {
    fn renew(old: Option<&Self>, now: Timestamp, error: Error) -> Self {
        let wait = old.map_or(FIRST_WAIT, |old| (old.wait * 2).min(LONGEST_PAUSE));
        Self { wait, until: now.plus(wait), probes: PROBES, error }
    }
}

#[derive(Default)]
pub(crate) struct Work {
    /// This process's versions, oldest first.
    queue: VecDeque<Version>,
    /// Bytes of the queue, and of what the worker has taken from it.
    held: usize,
    spilled: Option<Spilled>,
    /// This process's versions that the worker has taken.
    in_hand: HashMap<ObjectId, Timestamp>,
    failing: HashMap<ObjectId, Failing>,
    /// Failing versions of this process that found no place in `failing`.
    forgotten: u64,
    /// Rows of others may wait: when they are looked for.
    look_at: Option<Timestamp>,
    pub(crate) running: bool,
    pub(crate) stopped: bool,
    pub(crate) task: Option<JoinHandle<()>>,
    /// Different versions that failed since one was stored.
    streak: u32,
    storage: Option<Pause>,
    database: Option<Pause>,
    waiters: HashMap<ObjectId, Vec<(u64, Waiter)>>,
    next_waiter: u64,
    /// Until when versions are gathered, unless there are enough of them or a caller waits for one.
    gathering: Option<Timestamp>,
    batch: Batch,
}

/// How this process's versions are gathered before they are stored.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    window: Duration,
    enough: usize,
}

/// What the worker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Go,
    /// Not before this time.
    Paused(Timestamp),
    /// The probes of an outage are under way. If they hang, others may follow them at this time.
    Probing(Timestamp),
}

impl Work {
    /// Until when more versions are gathered; none if it is time to store them.
    pub(crate) fn gathers(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.stopped
            || !self.waiters.is_empty()
            || self.spilled.is_some()
            || self.queue.len() >= self.batch.enough;
        self.gathering.filter(|until| !ends && *until > now)
    }

    /// Takes a version in, as far as there is room.
    pub(crate) fn push(&mut self, mut version: Version, now: Timestamp) {
        if self.queue.is_empty() {
            self.gathering = Some(now.plus(self.batch.window));
        }
        let weight = version.weigh();
        let since = version.entry.since;
        // What comes behind rows that are read back is read back, too, so that the oldest goes first.
        match &mut self.spilled {
            Some(spilled) => spilled.add(since),
            None if self.held + weight > MEMORY_BYTES => {
                self.spilled = Some(Spilled { from: since, to: since, count: 1, after: None, came: None });
            }
            None => {
                version.entry.weight = weight;
                self.held += weight;
                self.queue.push_back(version);
            }
        }
    }

    /// This process's versions that are not stored yet.
    pub(crate) fn own(&self) -> u64 {
        let failing = self.failing.values().filter(|failing| failing.entry.own).count();
        (self.queue.len() + self.in_hand.len() + failing) as u64
            + self.spilled.map_or(0, |spilled| spilled.count)
            + self.forgotten
    }

    /// Whether one of this process's versions is to be stored now.
    pub(crate) fn has_queued(&self, now: Timestamp) -> bool {
        !self.queue.is_empty() && self.gathers(now).is_none()
    }

    pub(crate) fn take_queued(&mut self, now: Timestamp) -> Option<Version> {
        if self.gathers(now).is_some() {
            return None;
        }
        let version = self.queue.pop_front()?;
        // The others that were gathered follow.
        self.gathering = None;
        self.in_hand.insert(version.entry.row_id, version.entry.since);
        Some(version)
    }

    pub(crate) fn spilled(&self) -> Option<&Spilled> {
        self.spilled.as_ref()
    }

    /// What is to be read back next.
    pub(crate) fn begin_to_read_back(&mut self) -> Option<Spilled> {
        let spilled = self.spilled.as_mut()?;
        // It came late, and reading has passed its place: once more from the start.
        if let (Some(came), Some((passed, _))) = (spilled.came.take(), spilled.after)
            && came <= passed
        {
            spilled.after = None;
        }
        Some(*spilled)
    }

    /// Rows were read back, up to `end`; none if there were no more.
    pub(crate) fn have_read_back(&mut self, end: Option<(Timestamp, ObjectId)>) {
        let Some(spilled) = &mut self.spilled else { return };
        match (end, spilled.came) {
            (Some(end), _) => spilled.after = Some(end),
            (None, Some(_)) => {}
            (None, None) => self.spilled = None,
        }
    }

    /// A version of this process was read back.
    pub(crate) fn took_back(&mut self, entry: &Entry) {
        if let Some(spilled) = &mut self.spilled {
            spilled.count = spilled.count.saturating_sub(1);
        }
        self.in_hand.insert(entry.row_id, entry.since);
    }

    /// Since when this process's versions wait that the worker has not taken yet.
    pub(crate) fn oldest_own(&self) -> Option<Timestamp> {
        let queued = self.queue.front().map(|version| version.entry.since);
        queued.into_iter().chain(self.spilled.map(|spilled| spilled.from)).min()
    }

    pub(crate) fn knows(&self, row: ObjectId) -> bool {
        self.failing.contains_key(&row) || self.in_hand.contains_key(&row)
    }

    /// A failing version whose time has come; in an outage any, as one must be tried.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Entry> {
        let probing = self.storage.is_some();
        let due =
            self.failing.values_mut().filter(|failing| !failing.trying && (probing || failing.next <= now));
        let failing = due.min_by_key(|failing| failing.next)?;
        failing.trying = true;
        Some(failing.entry)
    }

    /// When the next failing version is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.failing.values().filter(|failing| !failing.trying).map(|failing| failing.next).min()
    }

    /// Nothing is left of a version: it is stored, by this process or another, or its row is gone.
    pub(crate) fn finished(&mut self, entry: &Entry) {
        self.in_hand.remove(&entry.row_id);
        self.failing.remove(&entry.row_id);
        self.release(entry);
    }

    /// The payload of a version is no longer in memory.
    pub(crate) fn release(&mut self, entry: &Entry) {
        self.held = self.held.saturating_sub(entry.weight);
    }

    /// A version could not be stored: it waits alone.
    pub(crate) fn failed(&mut self, entry: Entry, error: Error, now: Timestamp) {
        self.in_hand.remove(&entry.row_id);
        let room = self.failing.len() < MAX_FAILING;
        match self.failing.get_mut(&entry.row_id) {
            Some(failing) => {
                failing.tries += 1;
                failing.next = now.plus(wait_after(failing.tries));
                failing.trying = false;
                failing.error = error;
            }
            None => {
                self.streak += 1;
                if room {
                    let entry = Entry { weight: 0, ..entry };
                    let next = now.plus(FIRST_WAIT);
                    self.failing
                        .insert(entry.row_id, Failing { entry, tries: 1, next, trying: false, error });
                } else {
                    self.forgotten += u64::from(entry.own);
                    self.look_at = Some(now.plus(LONGEST_WAIT));
                }
            }
        }
    }

    /// A failing version was not tried after all.
    pub(crate) fn not_tried(&mut self, row: ObjectId) {
        if let Some(failing) = self.failing.get_mut(&row) {
            failing.trying = false;
        }
    }

    /// A row no longer waits, by whatever reason: those that wait for it look at it themselves.
    pub(crate) fn gone(&mut self, entry: &Entry) {
        self.finished(entry);
        self.waiters.remove(&entry.row_id);
    }

    /// When rows of others are looked for next.
    pub(crate) fn look_at(&self) -> Option<Timestamp> {
        self.look_at
    }

    /// Rows of others are looked for at once.
    pub(crate) fn look(&mut self) {
        self.look_at = Some(Timestamp::default());
    }

    /// The rows of others are gone through from the start. What was forgotten is met again.
    pub(crate) fn begin_to_look_through(&mut self) {
        self.forgotten = 0;
    }

    /// The rows of others were gone through to the end; the next of them are worth a look at `next`.
    pub(crate) fn looked_through(&mut self, next: Option<Timestamp>, now: Timestamp) {
        let forgotten = (self.forgotten > 0).then(|| now.plus(LONGEST_WAIT));
        self.look_at = next.into_iter().chain(forgotten).min();
    }

    /// No further failing version can be remembered.
    pub(crate) fn is_crowded(&self) -> bool {
        self.failing.len() >= MAX_FAILING
    }

    /// What a worker that ended in the middle had in its hands is read back.
    pub(crate) fn take_back(&mut self) {
        for failing in self.failing.values_mut() {
            failing.trying = false;
        }
        for (_, since) in std::mem::take(&mut self.in_hand) {
            match &mut self.spilled {
                Some(spilled) => spilled.add(since),
                None => {
                    self.spilled = Some(Spilled { from: since, to: since, count: 1, after: None, came: None })
                }
            }
        }
        self.held = self.queue.iter().map(|version| version.entry.weight).sum();
    }

    /// Whether the worker may begin with another version. `under_way` of them are.
    pub(crate) fn permit(&mut self, now: Timestamp, under_way: usize) -> Permit {
        let pauses = self.storage.iter().chain(&self.database);
        if let Some(until) = pauses.map(|pause| pause.until).filter(|until| *until > now).max() {
            return Permit::Paused(until);
        }
        match self.storage.iter_mut().chain(&mut self.database).min_by_key(|pause| pause.probes) {
            None => Permit::Go,
            Some(pause) if under_way < pause.probes => Permit::Go,
            Some(pause) if pause.until.plus(LONGEST_WAIT) <= now => {
                pause.until = now;
                pause.probes += PROBES;
                if under_way < pause.probes { Permit::Go } else { Permit::Probing(now.plus(LONGEST_WAIT)) }
            }
            Some(pause) => Permit::Probing(pause.until.plus(LONGEST_WAIT)),
        }
    }

    pub(crate) fn storage_works(&mut self) {
        self.streak = 0;
        self.storage = None;
    }

    /// After a version failed: whether that makes an outage, or goes on with one.
    pub(crate) fn storage_failed(&mut self, error: &Error, now: Timestamp) {
        let is_over = self.storage.as_ref().is_some_and(|pause| pause.until <= now);
        if is_over || (self.storage.is_none() && self.streak >= OUTAGE) {
            self.storage = Some(Pause::renew(self.storage.as_ref(), now, error.clone()));
        }
    }

    pub(crate) fn database_works(&mut self) {
        self.database = None;
    }

    pub(crate) fn database_failed(&mut self, error: Error, now: Timestamp) {
        self.database = Some(Pause::renew(self.database.as_ref(), now, error));
    }

    /// Why nothing is tried at present.
    pub(crate) fn outage(&self) -> Option<Error> {
        self.storage.as_ref().or(self.database.as_ref()).map(|pause| pause.error.clone())
    }

    /// Everybody who waits for versions that are not tried hears why.
    pub(crate) fn all_waiters(&mut self) -> Vec<Waiter> {
        self.waiters.drain().flat_map(|(_, waiters)| waiters).map(|(_, waiter)| waiter).collect()
    }

    pub(crate) fn has_waiter(&self, row: ObjectId) -> bool {
        self.waiters.contains_key(&row)
    }

    pub(crate) fn wait_for(&mut self, row: ObjectId, waiter: Waiter) -> u64 {
        self.next_waiter += 1;
        self.waiters.entry(row).or_default().push((self.next_waiter, waiter));
        self.next_waiter
    }

    pub(crate) fn no_longer_wait(&mut self, row: ObjectId, number: u64) {
        if let Some(waiters) = self.waiters.get_mut(&row) {
            waiters.retain(|(known, _)| *known != number);
            if waiters.is_empty() {
                self.waiters.remove(&row);
            }
        }
    }

    /// Pauses and waits end now.
    pub(crate) fn hurry(&mut self, now: Timestamp) {
        for pause in self.storage.iter_mut().chain(&mut self.database) {
            pause.until = pause.until.min(now);
        }
        for failing in self.failing.values_mut() {
            failing.next = failing.next.min(now);
        }
        self.look_at = self.look_at.map(|at| at.min(now));
        self.gathering = None;
    }

    /// What fails, by rows, those that failed most often first.
    pub(crate) fn failing(&self, collection: &str) -> Vec<(ObjectId, FailingVersion)> {
        let mut failing: Vec<&Failing> = self.failing.values().collect();
        failing.sort_by_key(|failing| {
            (std::cmp::Reverse(failing.tries), failing.entry.since, failing.entry.row_id)
        });
        let named = failing.into_iter().map(|failing| {
            let (Entry { row_id, id, ov, .. }, tries, error) =
                (failing.entry, failing.tries, failing.error.clone());
            (row_id, FailingVersion { collection: collection.to_owned(), id, ov, tries, error })
        });
        named.collect()
    }
}

impl Spilled {
    fn add(&mut self, since: Timestamp) {
        self.from = self.from.min(since);
        self.to = self.to.max(since);
        self.count += 1;
        self.came = Some(self.came.map_or(since, |came| came.min(since)));
    }
}

fn wait_after(tries: u32) -> Duration {
    (FIRST_WAIT * 2_u32.saturating_pow(tries.saturating_sub(1).min(16))).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_waits_longer_after_each_try_up_to_half_a_minute() {
        let waits: Vec<u128> = (1..=10).map(|tries| wait_after(tries).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
    }
}
