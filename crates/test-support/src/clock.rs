use std::collections::BTreeMap;
use std::time::Duration;

use chronos_db::{Clock, Timestamp};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// A clock that stands still until a test moves it. Who sleeps on it wakes when its time has come, without
/// any real waiting.
///
/// It says nothing about *who* runs after a wake-up: a test that steps through several sleeps of one task
/// waits with [`sleepers`](Self::sleepers) until the task sleeps again before it moves on.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use chronos_db::Clock;
/// # use test_support::MockClock;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let clock = Arc::new(MockClock::default());
/// let task = tokio::spawn(clock.sleep(Duration::from_secs(30)));
/// clock.advance(Duration::from_secs(30));
/// task.await.unwrap();
/// # }
/// ```
#[derive(Debug)]
pub struct MockClock {
    state: Mutex<State>,
    /// Notified whenever a sleep began.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    next: u64,
    /// By the moment of waking and, within it, the order of falling asleep.
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
}

impl Default for MockClock {
    /// Starts at 2024-01-01T00:00:00Z.
    fn default() -> Self {
        Self::starting_at(Timestamp::from_millis(1_704_067_200_000))
    }
}

impl MockClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn starting_at(now: Timestamp) -> Self {
        Self {
            state: Mutex::new(State { now, next: 0, sleepers: BTreeMap::new() }),
            changed: watch::Sender::new(()),
        }
    }

    /// Moves the clock forward by `duration` (a part of a millisecond counts as a whole) and wakes everybody
    /// whose time has come, in the order of their times.
    pub fn advance(&self, duration: Duration) {
        let mut state = self.state.lock();
        let now = state.now.plus_millis(millis(duration));
        state.now = now;
        while let Some(sleeper) = state.sleepers.first_entry()
            && sleeper.key().0 <= now
        {
            wake(sleeper.remove());
        }
    }

    /// Moves the clock to the next moment at which a sleep ends, and ends it. `false` if there is none.
    pub fn advance_to_next(&self) -> bool {
        let Some(next) = self.next_wake() else { return false };
        let left = next.as_millis().saturating_sub(self.now().as_millis());
        self.advance(Duration::from_millis(left.max(0).unsigned_abs()));
        true
    }

    /// The next moment at which a sleep ends.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.state.lock().awake_later().map(|(at, _)| at).next()
    }

    /// How many sleep at present.
    #[must_use]
    pub fn sleeping(&self) -> usize {
        self.state.lock().awake_later().count()
    }

    /// Returns when at least `count` sleep.
    pub async fn sleepers(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.sleeping() < count {
            changed.changed().await.expect("the clock holds the sender");
        }
    }
}

impl State {
    /// Those that still wait: who was dropped left its half of the channel behind.
    fn awake_later(&self) -> impl Iterator<Item = (Timestamp, u64)> {
        self.sleepers.iter().filter(|(_, sleeper)| !sleeper.is_closed()).map(|(key, _)| *key)
    }
}

impl Clock for MockClock {
    fn now(&self) -> Timestamp {
        self.state.lock().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (wake_up, woken) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let at = state.now.plus_millis(millis(duration));
            if at <= state.now {
                wake(wake_up);
            } else {
                let key = (at, state.next);
                state.next += 1;
                state.sleepers.insert(key, wake_up);
            }
        }
        self.changed.send_replace(());
        Box::pin(async move {
            if woken.await.is_err() {
                // The clock is gone, so this moment never comes.
                std::future::pending::<()>().await;
            }
        })
    }
}

fn wake(sleeper: oneshot::Sender<()>) {
    // Fails only if nobody waits any more.
    let _ = sleeper.send(());
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
