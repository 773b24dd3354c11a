use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chronos_db::{Clock, SystemClock, Timestamp};
use futures::future::BoxFuture;

/// The machine's clock, ahead or behind by as much as a test likes. Sleeping takes its real time.
#[derive(Debug, Default)]
pub struct ShiftedClock(AtomicI64);

impl ShiftedClock {
    /// A clock that is ahead by this many milliseconds, or behind if negative.
    #[must_use]
    pub fn ahead_by(millis: i64) -> Self {
        Self(AtomicI64::new(millis))
    }

    /// Jumps.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration)
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}
