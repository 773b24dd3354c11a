//! The worker: takes what waits, puts several objects at once, and writes down in groups what is stored.
//!
//! No version waits for another one: a put that hangs or fails keeps one of the places, and what failed is
//! tried again alone, later.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bson::oid::ObjectId;
use futures::{FutureExt as _, TryStreamExt as _};
use tokio::task::{Id, JoinError, JoinSet};

use super::queue::{Meta, Permit, Version};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Scan};
use crate::records::engine::Engine;
use crate::records::model::{ItemId, Op, Row};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Puts under way at once, and how many of them may be further tries of versions that failed, and of versions
/// that others left. The rest is for those of this process, even if all others hang.
const PUTS: usize = 16;
const RETRIES: usize = 4;
const OTHERS: usize = 8;
/// Bytes of others' versions that are put at once. (Those of this process are bounded where they wait.)
const OTHERS_BYTES: usize = 16 * 1024 * 1024;
/// Versions written down as stored together, unless there is nothing to wait for.
const RECORD: usize = 64;
/// Rows read back together: at most so many, and no further one behind so many bytes.
const READ_ROWS: u64 = 128;
pub(super) const READ_BYTES: usize = 8 * 1024 * 1024;
/// Rows that are looked at for one of another process; at most so many are under way here.
const MAX_KNOWN: u64 = 1_024;
/// While this process's own versions wait, every so many-th put is of one that another process left.
const SHARE_OF_OTHERS: u64 = 8;
/// A row of another process is left to that process for so long.
pub(super) const LEFT_TO_ITS_WRITER_MILLIS: i64 = 5_000;

/// Puts of an item that are under way.
#[derive(Default)]
struct Busy {
    puts: usize,
    erasing: bool,
}

type Position = (Timestamp, ObjectId);
type Recorded = Result<(), Arc<Error>>;

/// Where a version failed.
#[derive(Clone, Copy)]
enum Step {
    Put,
    Record,
}

/// Writes down that these versions are stored. One that the database refuses for good does not hold up the
/// others.
async fn record(engine: &Arc<Engine>, group: Vec<Version>) -> Vec<(Meta, Recorded)> {
    let metas: Vec<Meta> = group.iter().map(|version| version.meta).collect();
    let each = match engine.record_group(group.iter()).await {
        Err(error) if !error.is_retryable() && group.len() > 1 => {
            let mut each = Vec::with_capacity(group.len());
            for version in &group {
                each.push(engine.record_group(std::iter::once(version)).await.map_err(Arc::new));
            }
            each
        }
        result => vec![result.map_err(Arc::new); group.len()],
    };
    metas.into_iter().zip(each).collect()
}

pub(super) struct Worker {
    engine: Arc<Engine>,
    puts: JoinSet<(Version, Result<()>)>,
    /// What is under way, from its taking until it is written down.
    active: HashMap<ObjectId, Meta>,
    tasks: HashMap<Id, Meta>,
    items: HashMap<ItemId, Busy>,
    retries: HashSet<ObjectId>,
    /// Versions of items whose erasure is under way, and erasures of items with puts under way.
    deferred: VecDeque<Version>,
    /// Rows read back, not begun yet.
    read: VecDeque<Version>,
    stored: Vec<Version>,
    recording: JoinSet<Vec<(Meta, Recorded)>>,
    being_recorded: Vec<Meta>,
    /// How far the rows that others left have been gone through.
    passed: Option<Position>,
    /// The way through them ended at the oldest of this process's own; it goes on when there are none.
    ended_early: bool,
    turn: u64,
}

/// Starts the worker of a collection. It ends by itself when nothing is left to do.
pub(super) fn start(engine: &Arc<Engine>) -> tokio::task::JoinHandle<()> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let mut running = Running { engine: Arc::clone(&engine), ended: false };
        loop {
            let mut worker = Worker::new(Arc::clone(&engine));
            let Err(panic) = AssertUnwindSafe(worker.run()).catch_unwind().await else { break };
            drop(worker);
            let error = Error::database(format!("the flusher panicked: {}", words(&*panic))).retryable();
            tracing::error!(collection = %engine.names.collection, %error, "the flusher begins anew");
            let now = engine.env.clock.now();
            let mut work = engine.flusher.lock();
            work.take_back();
            work.database_failed(Arc::new(error), now);
        }
        // It has said so itself, and another one may have begun.
        running.ended = true;
        engine.flusher.changed.notify_waiters();
    })
}

/// If the worker is ended from outside, the next write starts another one.
struct Running {
    engine: Arc<Engine>,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        {
            let mut work = self.engine.flusher.lock();
            work.running = false;
            work.take_back();
            // They hear that nobody stores their versions any more.
            drop(work.all_waiters());
        }
        self.engine.flusher.changed.notify_waiters();
    }
}

impl Worker {
    fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
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

    fn has_room_for_others(&self) -> bool {
        let others = self.tasks.values().filter(|meta| !meta.own && !self.retries.contains(&meta.row_id));
        let (count, bytes) = others.fold((0, 0), |(count, bytes), meta| (count + 1, bytes + meta.bytes));
        count < OTHERS && bytes < OTHERS_BYTES
    }

    fn now(&self) -> Timestamp {
        self.engine.env.clock.now()
    }

    async fn run(&mut self) {
        loop {
            let filled = self.fill().await;
            if let Err(error) = filled {
                self.database_failed(error);
            }
            self.record();
            let Some(until) = self.rest() else { return };
            let engine = Arc::clone(&self.engine);
            let wake = async {
                match until {
                    Some(until) => {
                        let left = until.as_millis() - engine.env.clock.now().as_millis();
                        engine
                            .env
                            .clock
                            .sleep(std::time::Duration::from_millis(left.max(0).unsigned_abs()))
                            .await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.puts.join_next_with_id() => self.put_ended(ended),
                Some(recorded) = self.recording.join_next() => self.recorded(recorded),
                () = engine.flusher.kick.notified() => {}
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
        let mut work = self.engine.flusher.lock();
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
        if work.has_queued()
            || work.spilled().is_some()
            || self.read.front().is_some_and(|version| version.meta.own || room)
        {
            // A pause has ended just now.
            return Some(Some(now));
        }
        let due = work.next_due().filter(|_| self.retries.len() < RETRIES);
        let next = due.into_iter().chain(work.look_at().filter(|_| room)).min();
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
                let mut work = self.engine.flusher.lock();
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

    fn begin_deferred(&mut self) {
        for _ in 0..self.deferred.len() {
            if let Some(version) = self.deferred.pop_front() {
                self.begin(version);
            }
        }
    }

    fn begin(&mut self, version: Version) {
        self.active.insert(version.meta.row_id, version.meta);
        let erases = version.row().op == Op::Erase;
        // An erasure comes last: a payload of the same item that is put beside it would outlive it.
        let waits = |other: &Version| other.meta.id == version.meta.id;
        let busy = self.items.entry(version.meta.id).or_default();
        if busy.erasing || (erases && busy.puts > 0) || self.deferred.iter().any(waits) {
            self.deferred.push_back(version);
            return;
        }
        busy.puts += 1;
        busy.erasing = erases;
        let (engine, meta) = (Arc::clone(&self.engine), version.meta);
        let task = self.puts.spawn(async move {
            let mut version = version;
            let put = engine.put_objects(version.row()).await;
            version.strip();
            (version, put)
        });
        self.tasks.insert(task.id(), meta);
    }

    fn put_ended(&mut self, ended: Result<(Id, (Version, Result<()>)), JoinError>) {
        let (task, done) = match ended {
            Ok((task, done)) => (task, Ok(done)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(meta) = self.tasks.remove(&task) else { return };
        if let Some(busy) = self.items.get_mut(&meta.id) {
            busy.puts -= 1;
            busy.erasing = false;
            if busy.puts == 0 {
                self.items.remove(&meta.id);
            }
        }
        self.engine.flusher.lock().release(&meta);
        match done {
            Ok((mut version, Ok(()))) => {
                self.engine.flusher.lock().storage_works();
                version.meta.forget_weight();
                self.stored.push(version);
            }
            Ok((_, Err(error))) => self.failed(meta, Arc::new(error), Step::Put),
            Err(panic) => {
                let error = Error::storage(format!("storing the version panicked: {}", panic_words(panic)))
                    .retryable();
                self.failed(meta, Arc::new(error), Step::Put);
            }
        }
    }

    /// The version waits alone from now on.
    fn failed(&mut self, mut meta: Meta, error: Arc<Error>, at: Step) {
        meta.forget_weight();
        self.active.remove(&meta.row_id);
        self.retries.remove(&meta.row_id);
        let now = self.now();
        let (collection, id, ov) = (&self.engine.names.collection, meta.id, meta.ov);
        tracing::warn!(%collection, item = %id, ov, %error, "a version waits to be stored");
        let unheard = {
            let mut work = self.engine.flusher.lock();
            work.failed(meta, Arc::clone(&error), now);
            match at {
                // An erasure needs the database, too, and says nothing of the storage then.
                Step::Put if error.kind() == ErrorKind::Database => {}
                Step::Put => work.storage_failed(&error, now),
                Step::Record => work.database_failed(Arc::clone(&error), now),
            }
            if work.outage().is_some() { work.all_waiters() } else { Vec::new() }
        };
        self.engine.flusher.answer(meta.row_id, &Err(Arc::clone(&error)));
        for waiter in unheard {
            let _ = waiter.send(Err(Arc::clone(&error)));
        }
        self.engine.flusher.changed.notify_waiters();
    }

    fn database_failed(&mut self, error: Error) {
        let error = Arc::new(error);
        tracing::warn!(collection = %self.engine.names.collection, %error, "the flusher cannot read or write rows");
        let now = self.now();
        let unheard = {
            let mut work = self.engine.flusher.lock();
            work.database_failed(Arc::clone(&error), now);
            work.all_waiters()
        };
        for waiter in unheard {
            let _ = waiter.send(Err(Arc::clone(&error)));
        }
        self.engine.flusher.changed.notify_waiters();
    }

    /// Writes down what is stored: when a group is complete, when somebody waits for it, or when there is
    /// nothing else to wait for.
    fn record(&mut self) {
        if self.stored.is_empty() || !self.recording.is_empty() {
            return;
        }
        let waited_for = {
            let work = self.engine.flusher.lock();
            self.puts.len() < PUTS || self.stored.iter().any(|version| work.has_waiter(version.meta.row_id))
        };
        if self.stored.len() < RECORD && !waited_for {
            return;
        }
        let group = std::mem::take(&mut self.stored);
        self.being_recorded = group.iter().map(|version| version.meta).collect();
        let engine = Arc::clone(&self.engine);
        self.recording.spawn(async move { record(&engine, group).await });
    }

    fn recorded(&mut self, recorded: Result<Vec<(Meta, Recorded)>, JoinError>) {
        let group = std::mem::take(&mut self.being_recorded);
        let group = recorded.unwrap_or_else(|panic| {
            let words = panic_words(panic);
            let error = Error::database(format!("writing down what is stored panicked: {words}")).retryable();
            let error = Arc::new(error);
            group.into_iter().map(|meta| (meta, Err(Arc::clone(&error)))).collect()
        });
        for (meta, result) in group {
            match result {
                Ok(()) => {
                    self.active.remove(&meta.row_id);
                    self.retries.remove(&meta.row_id);
                    {
                        let mut work = self.engine.flusher.lock();
                        work.database_works();
                        work.finished(&meta);
                    }
                    self.engine.flusher.answer(meta.row_id, &Ok(()));
                }
                Err(error) => self.failed(meta, error, Step::Record),
            }
        }
        self.engine.flusher.changed.notify_waiters();
    }

    /// The next version: this process's own first, but a share of the places is for those that failed and
    /// those that others left.
    async fn take(&mut self, now: Timestamp) -> Result<Option<Version>> {
        loop {
            let (due, look, read_back) = {
                let mut work = self.engine.flusher.lock();
                let own = work.has_queued()
                    || self.read.front().is_some_and(|version| version.meta.own)
                    || work.spilled().is_some();
                if !own && std::mem::take(&mut self.ended_early) {
                    work.look();
                }
                let turn = |every: u64| !own || self.turn % every == every - 1;
                let retry = self.retries.len() < RETRIES && (turn(4) || work.is_crowded());
                let due = if retry { work.take_due(now) } else { None };
                let others = self.read.front().is_some_and(|version| !version.meta.own);
                let turn_of_others = self.has_room_for_others() && turn(SHARE_OF_OTHERS);
                let look =
                    self.read.is_empty() && work.look_at().is_some_and(|at| at <= now) && turn_of_others;
                if due.is_none() && !look {
                    if others && turn_of_others {
                        return Ok(self.read.pop_front());
                    }
                    if let Some(version) = work.take_queued() {
                        return Ok(Some(version));
                    }
                    if !others && let Some(version) = self.read.pop_front() {
                        return Ok(Some(version));
                    }
                }
                if others && work.spilled().is_some() {
                    // The buffer is for this process's own; the rows of others are gone through once more,
                    // later.
                    self.read.clear();
                    self.passed = None;
                    self.ended_early = true;
                }
                (due, look, work.spilled().is_some())
            };
            if let Some(due) = due {
                match self.read_again(due).await {
                    Ok(None) => continue,
                    again => return again,
                }
            } else if look {
                self.look_for_others().await?;
            } else if read_back {
                self.read_back().await?;
            } else {
                return Ok(None);
            }
        }
    }

    /// A version that failed before, from its row; none if nothing is left to do for it.
    async fn read_again(&mut self, due: Meta) -> Result<Option<Version>> {
        let found = self.engine.documents.get_stored(&self.engine.names.ver, vec![due.row_id.into()]).await;
        let versions = match found
            .and_then(|found| found.iter().map(|stored| Row::read(stored)).collect::<Result<Vec<_>>>())
        {
            Ok(rows) => {
                self.with_heads(rows.into_iter().filter(|row| row.unflushed_since.is_some()).collect()).await
            }
            Err(error) => Err(error),
        };
        let mut versions = match versions {
            Ok(versions) => versions,
            Err(error) => {
                self.engine.flusher.lock().not_tried(due.row_id);
                return Err(error);
            }
        };
        let Some(mut version) = versions.pop() else {
            // Another process has stored it, or it was erased: those that wait look at its row.
            self.engine.flusher.lock().gone(&due);
            self.engine.flusher.changed.notify_waiters();
            return Ok(None);
        };
        version.meta.own = due.own;
        self.retries.insert(due.row_id);
        Ok(Some(version))
    }

    /// Reads back some of this process's versions that memory had no room for.
    async fn read_back(&mut self) -> Result<()> {
        let Some(spilled) = self.engine.flusher.lock().begin_to_read_back() else { return Ok(()) };
        let filter = Filter::And(vec![from(spilled.from), Filter::lte("unflushedSince", spilled.to)]);
        let (rows, end) = self.read_rows(filter, spilled.after).await?;
        let versions = self.with_heads(rows).await?;
        let mut work = self.engine.flusher.lock();
        for mut version in versions {
            if self.active.contains_key(&version.meta.row_id) || work.knows(version.meta.row_id) {
                continue;
            }
            version.meta.own = true;
            work.took_back(&version.meta);
            self.read.push_back(version);
        }
        work.have_read_back(end);
        Ok(())
    }

    /// Goes on through what others left: rows that wait for so long that their writer must have died.
    async fn look_for_others(&mut self) -> Result<()> {
        let now = self.engine.documents.now().await?;
        let old = now.plus_millis(-LEFT_TO_ITS_WRITER_MILLIS);
        let oldest_own = self.engine.flusher.lock().oldest_own();
        let until = oldest_own.map_or(old, |oldest| old.min(oldest.plus_millis(-1)));
        if self.passed.is_none() {
            self.engine.flusher.lock().begin_to_look_through();
        }
        let (rows, end) =
            self.read_rows(self.engine.of_served(Filter::lte("unflushedSince", until)), self.passed).await?;
        if end.is_some() {
            let versions = self.with_heads(rows).await?;
            self.passed = end;
            let work = self.engine.flusher.lock();
            let is_news = |row: ObjectId| !self.active.contains_key(&row) && !work.knows(row);
            self.read.extend(versions.into_iter().filter(|version| is_news(version.meta.row_id)));
            return Ok(());
        }
        // The end: what was passed and still waits is known to fail. What is young by now is looked at when
        // it is old.
        self.ended_early = oldest_own.is_some();
        let next = if self.ended_early {
            Some(LEFT_TO_ITS_WRITER_MILLIS)
        } else {
            self.left_to_their_writers(now, until).await?
        };
        self.passed = None;
        let clock = self.now();
        self.engine.flusher.lock().looked_through(next.map(|left| clock.plus_millis(left)), clock);
        self.engine.flusher.changed.notify_waiters();
        Ok(())
    }

    /// In how many milliseconds the first row of another process that was written after `until` is old
    /// enough; none if there is no such row.
    async fn left_to_their_writers(&self, now: Timestamp, until: Timestamp) -> Result<Option<i64>> {
        let scan = Scan {
            filter: self.engine.of_served(Filter::gt("unflushedSince", until)),
            order: order(),
            limit: Some(MAX_KNOWN),
            without: ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let mut rows = self.engine.scan_rows(scan);
        while let Some(row) = rows.try_next().await? {
            let is_known =
                self.active.contains_key(&row.row_id) || self.engine.flusher.lock().knows(row.row_id);
            if let (false, Some(since)) = (is_known, row.unflushed_since) {
                let left = since.as_millis() + LEFT_TO_ITS_WRITER_MILLIS - now.as_millis();
                return Ok(Some(left.clamp(1, LEFT_TO_ITS_WRITER_MILLIS)));
            }
        }
        Ok(None)
    }

    /// Some rows that wait, oldest first, and the place of the last; no place if there are none. A row counts
    /// with all its bytes, so that memory does not depend on what rows weigh.
    async fn read_rows(
        &self,
        filter: Filter,
        after: Option<Position>,
    ) -> Result<(Vec<Row>, Option<Position>)> {
        let after = after.map(|(since, row)| vec![since.into(), row.into()]);
        let scan = Scan { filter, order: order(), after, limit: Some(READ_ROWS), ..Scan::default() };
        let mut stored = self.engine.documents.scan_stored(&self.engine.names.ver, scan);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < READ_BYTES
            && let Some(found) = stored.try_next().await?
        {
            bytes += found.as_bytes().len();
            rows.push(Row::read(&found)?);
        }
        let end = rows.last().and_then(|row| Some((row.unflushed_since?, row.row_id)));
        Ok((rows, end))
    }

    /// The rows with the heads they belong to.
    async fn with_heads(&self, rows: Vec<Row>) -> Result<Vec<Version>> {
        let heads = self.engine.heads(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
        let with_head = |row: Row| {
            let known = heads.get(&row.id);
            let head =
                known.filter(|head| head.cv >= row.cv).cloned().unwrap_or_else(|| row.head_after(known));
            Version::new(row, head, false)
        };
        Ok(rows.into_iter().map(with_head).collect())
    }
}

fn order() -> Vec<(String, Direction)> {
    vec![("unflushedSince".into(), Direction::Ascending), ("_id".into(), Direction::Ascending)]
}

fn from(since: Timestamp) -> Filter {
    Filter::Field("unflushedSince".into(), Test::Gte(since.into()))
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
