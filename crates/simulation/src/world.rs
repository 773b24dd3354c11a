//! The world of one run: time, chance, the stores that all processes share, and what may go wrong in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chronos_db::documents::DocumentStore;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::objects::StoreObjects;
use chronos_db::{Clock as _, Env, Result, SystemClock};
use parking_lot::Mutex;
use test_support::SeededRandom;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::history::History;
use crate::process::{Time, WorldClock};
use crate::setting::Setting;

/// Which document store all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file: a call takes place or fails, numbers and rows go together, the time is the process's own.
    Embedded,
    /// A replica set: answers are lost before and after the effect, what was given up lands later, numbers and
    /// rows are two commands, elections stop everything, the time is the server's.
    ReplicaSet,
    /// One server: as a replica set, without transactions and elections.
    Standalone,
}

/// How much of each kind of fault there is. Each run draws its own, so that some have a lot of one and
/// nothing of another. Per thousand calls, or per thousand looks of the one that makes trouble.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The document store's answer is lost after the effect.
    pub answer_lost: u64,
    /// A request is lost before it.
    pub request_lost: u64,
    /// What was given up takes place later.
    pub late: u64,
    /// A batch takes place in part, and its answer is lost.
    pub in_part: u64,
    /// A put fails.
    pub put_fails: u64,
    /// It fails, and its object is there.
    pub put_lands: u64,
    /// It fails, and its object comes later.
    pub put_late: u64,
    /// It takes long.
    pub put_stalls: u64,
    /// A process is killed.
    pub kill: u64,
    /// It is paused.
    pub pause: u64,
    /// It is cut off from a store.
    pub cut: u64,
    /// Its clock jumps.
    pub jump: u64,
    /// The storage is down, or there is an election.
    pub outage: u64,
}

impl Rates {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            answer_lost: 0,
            request_lost: 0,
            late: 0,
            in_part: 0,
            put_fails: 0,
            put_lands: 0,
            put_late: 0,
            put_stalls: 0,
            kill: 0,
            pause: 0,
            cut: 0,
            jump: 0,
            outage: 0,
        }
    }

    /// Those of a run.
    #[must_use]
    pub fn drawn(chance: &Chance) -> Self {
        let draw = |most: u64| if chance.hits(450) { 0 } else { 1 + chance.skewed(most) };
        Self {
            answer_lost: draw(120),
            request_lost: draw(120),
            late: draw(60),
            in_part: draw(60),
            put_fails: draw(300),
            put_lands: draw(200),
            put_late: draw(200),
            put_stalls: draw(200),
            kill: draw(250),
            pause: draw(250),
            cut: draw(200),
            jump: draw(200),
            outage: draw(150),
        }
    }
}

/// Several times what a run needs.
const CALLS: u64 = 100_000;

/// What the clients of runs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Of each run either.
    #[default]
    All,
    /// Records.
    Records,
    /// The bus on documents.
    Bus,
}

/// How a run differs from what its seed says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What clients do.
    pub profile: Profile,
    /// Guards of the engine that are left out.
    pub without: Vec<&'static str>,
    /// Reads stand in the time line, too.
    pub shows_reads: bool,
}

/// See the module.
pub struct World {
    /// The document store that all share.
    pub kind: Kind,
    /// Virtual time.
    pub time: Time,
    /// Every choice.
    pub chance: Chance,
    /// What happened.
    pub history: History,
    /// What may go wrong.
    pub rates: Rates,
    /// What of the engine is at work.
    pub setting: Setting,
    /// Clients are at the bus, not at records.
    pub on_bus: bool,
    /// What the document store holds.
    pub documents: Arc<dyn DocumentStore>,
    /// What the object storage holds.
    pub objects: StoreObjects,
    /// Which guards of the engine are left out.
    pub fail: FailPoints,
    /// Reads stand in the time line, too.
    pub shows_reads: bool,
    seed: u64,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
    processes: AtomicU64,
    no_primary_until: Mutex<Instant>,
    no_objects_until: Mutex<Instant>,
    /// What the longest call takes, in milliseconds.
    slowest: u64,
    healed: watch::Sender<bool>,
    /// How often the document store was asked.
    calls: watch::Sender<u64>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl World {
    /// Makes the world of a seed.
    ///
    /// # Errors
    /// The error of a store that cannot be made.
    pub fn new(seed: u64, options: &Options) -> Result<Arc<Self>> {
        let chance = Chance::new(seed);
        let kind =
            *chance.pick(&[Kind::Embedded, Kind::ReplicaSet, Kind::Standalone]).unwrap_or(&Kind::Embedded);
        let rates = Rates::drawn(&chance);
        let setting = Setting::drawn(&chance);
        let slowest = [4, 40, 400, 2_000][chance.skewed(4) as usize];
        Self::made(seed, kind, (rates, setting), chance, slowest, Time::begin(), options)
    }

    /// Makes a world in which nothing goes wrong, everything happens at once, and it is as late as outside.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn quiet(kind: Kind) -> Result<Arc<Self>> {
        Self::made(
            0,
            kind,
            (Rates::none(), Setting::plain()),
            Chance::new(0),
            0,
            Time::begin_at(SystemClock.now()),
            &Options::default(),
        )
    }

    fn made(
        seed: u64,
        kind: Kind,
        (rates, setting): (Rates, Setting),
        chance: Chance,
        slowest: u64,
        time: Time,
        options: &Options,
    ) -> Result<Arc<Self>> {
        let fail = FailPoints::armable();
        for guard in &options.without {
            fail.arm(guard, FailAction::Skip, 0, u64::MAX);
        }
        let random = Arc::new(SeededRandom::new(seed));
        let env = Env { clock: Arc::new(WorldClock(time)), random, ..Env::default() };
        let now = Instant::now();
        Ok(Arc::new(Self {
            kind,
            time,
            chance,
            history: History::new(time),
            rates,
            setting,
            on_bus: options.profile == Profile::Bus || options.profile == Profile::All && seed % 3 == 2,
            documents: Arc::new(EmbeddedDocuments::open(":memory:", env)?),
            objects: StoreObjects::memory("simulated")?,
            fail,
            shows_reads: options.shows_reads,
            seed,
            calm: AtomicBool::new(true),
            processes: AtomicU64::new(0),
            no_primary_until: Mutex::new(now),
            no_objects_until: Mutex::new(now),
            slowest,
            healed: watch::Sender::new(false),
            calls: watch::Sender::new(0),
        }))
    }

    /// Whether a fault of this rate happens now.
    pub fn strikes(&self, per_mille: u64) -> bool {
        !self.calm.load(Ordering::Relaxed) && self.chance.hits(per_mille)
    }

    /// From now on things go wrong.
    pub fn begin(&self) {
        self.calm.store(false, Ordering::Relaxed);
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.calm.store(true, Ordering::Relaxed);
        let now = Instant::now();
        *self.no_primary_until.lock() = now;
        *self.no_objects_until.lock() = now;
        self.history.line("the world heals");
        self.healed.send_replace(true);
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Returns when the world heals.
    pub async fn healed(self: Arc<Self>) {
        // The world holds the sender.
        let _ = self.healed.subscribe().wait_for(|healed| *healed).await;
    }

    /// The document store is asked.
    pub(crate) fn asked(&self) {
        self.calls.send_modify(|calls| *calls += 1);
    }

    /// Returns when the document store was asked more often than any run should.
    pub(crate) async fn runs_away(&self) {
        // The world holds the sender.
        let _ = self.calls.subscribe().wait_for(|calls| *calls > CALLS).await;
    }

    /// Begins an election.
    pub fn elect(&self, lasting: Duration) {
        *self.no_primary_until.lock() = Instant::now() + lasting;
    }

    /// Takes the object storage away for a while.
    pub fn storage_outage(&self, lasting: Duration) {
        *self.no_objects_until.lock() = Instant::now() + lasting;
    }

    /// When there is a primary again.
    pub(crate) fn primary_from(&self) -> Instant {
        *self.no_primary_until.lock()
    }

    /// When the object storage is there again.
    pub(crate) fn storage_from(&self) -> Instant {
        *self.no_objects_until.lock()
    }

    /// How long a message travels.
    pub(crate) fn latency(&self) -> Duration {
        if self.slowest == 0 {
            return Duration::ZERO;
        }
        let most = if self.chance.hits(30) { self.slowest * 5 } else { self.slowest };
        Duration::from_millis(self.chance.skewed(most))
    }

    /// The number of the next process, and its own randomness.
    pub(crate) fn next_process(&self) -> (u32, Arc<SeededRandom>) {
        let number = self.processes.fetch_add(1, Ordering::Relaxed) + 1;
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        (u32::try_from(number).unwrap_or(u32::MAX), Arc::new(SeededRandom::new(seed)))
    }
}

/// Waits on the world's time.
pub(crate) async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
