//! A simulated process: what of it goes on, and what time it thinks it is.
//!
//! Everything that a process does to the world passes a seam or a sleep, and those ask [`Process::pass`]. One
//! that was killed never passes again: its tasks stay where they are, nothing of them runs any more, no
//! destructor either, as if the operating system had ended it there. One that is paused passes later.

use std::time::Duration;

use chronos_db::{Clock, Timestamp};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::{Instant, sleep, sleep_until};

/// 2024-01-01T00:00:00Z.
const EPOCH_MILLIS: i64 = 1_704_067_200_000;

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its number; each start has a new one.
    pub number: u32,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    dead: bool,
    paused_until: Instant,
    no_documents_until: Instant,
    no_objects_until: Instant,
    skew_millis: i64,
}

impl Process {
    /// Starts one whose clock is wrong by so much.
    #[must_use]
    pub fn new(number: u32, skew_millis: i64) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            dead: false,
            paused_until: now,
            no_documents_until: now,
            no_objects_until: now,
            skew_millis,
        };
        Arc::new(Self { number, state: Mutex::new(state) })
    }

    /// Goes on if the process does: at once, when its pause ends, or never.
    pub async fn pass(&self) {
        loop {
            let State { dead, paused_until, .. } = *self.state.lock();
            if dead {
                std::future::pending::<()>().await;
            }
            if Instant::now() >= paused_until {
                return;
            }
            sleep_until(paused_until).await;
        }
    }

    /// Whether it was not killed.
    pub fn lives(&self) -> bool {
        !self.state.lock().dead
    }

    /// Kills it.
    pub fn kill(&self) {
        self.state.lock().dead = true;
    }

    /// Stops it for a while.
    pub fn pause(&self, duration: Duration) {
        self.state.lock().paused_until = Instant::now() + duration;
    }

    /// Cuts it off from the document store for a while.
    pub fn cut_documents(&self, duration: Duration) {
        self.state.lock().no_documents_until = Instant::now() + duration;
    }

    /// Cuts it off from the object storage for a while.
    pub fn cut_objects(&self, duration: Duration) {
        self.state.lock().no_objects_until = Instant::now() + duration;
    }

    /// Sets its clock wrong by so much.
    pub fn skew(&self, millis: i64) {
        self.state.lock().skew_millis = millis;
    }

    /// Gives it its lines back.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        (state.no_documents_until, state.no_objects_until) = (now, now);
    }

    /// Until when it does not reach the document store.
    pub(crate) fn documents_from(&self) -> Instant {
        self.state.lock().no_documents_until
    }

    /// Until when it does not reach the object storage.
    pub(crate) fn objects_from(&self) -> Instant {
        self.state.lock().no_objects_until
    }

    pub(crate) fn skew_millis(&self) -> i64 {
        self.state.lock().skew_millis
    }
}

/// Virtual time, which begins with the run.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    begun: Instant,
    epoch: Timestamp,
}

impl Time {
    /// Begins now, at 2024-01-01T00:00:00Z.
    #[must_use]
    pub fn begin() -> Self {
        Self::begin_at(Timestamp::from_millis(EPOCH_MILLIS))
    }

    /// Begins now, at some date.
    #[must_use]
    pub fn begin_at(epoch: Timestamp) -> Self {
        Self { begun: Instant::now(), epoch }
    }

    /// Since the beginning.
    #[must_use]
    pub fn passed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.begun)
    }

    /// The date that it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.passed().as_millis()).unwrap_or(i64::MAX);
        self.epoch.plus_millis(passed)
    }
}

/// The world's clock, which is right.
#[derive(Clone, Debug)]
pub(crate) struct WorldClock(pub Time);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(sleep(duration))
    }
}

/// A process's clock.
#[derive(Clone, Debug)]
pub(crate) struct ProcessClock {
    /// Whose.
    pub process: Arc<Process>,
    /// What it would show if it were right.
    pub time: Time,
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.time.now().plus_millis(self.process.skew_millis())
    }

    fn steady(&self) -> Duration {
        self.time.passed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (process, sleeping) = (Arc::clone(&self.process), sleep(duration));
        Box::pin(async move {
            sleeping.await;
            process.pass().await;
        })
    }
}
