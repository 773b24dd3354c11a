use std::sync::OnceLock;
use std::time::Duration;

use chronos_db::{Clock, SystemClock, Timestamp};
use futures::future::BoxFuture;

/// The machine's clock, ten times as fast since it was first looked at: what waits for three seconds by it is done in
/// a third of one. All waits and all bounds of what opens its stores with it keep their proportions, so everything
/// that opens the same stores has to go by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HurriedClock;

const TIMES: u32 = 10;

/// When it was looked at first; all of a process show the same.
fn began() -> (Timestamp, Duration) {
    static BEGAN: OnceLock<(Timestamp, Duration)> = OnceLock::new();
    *BEGAN.get_or_init(|| (SystemClock.now(), SystemClock.steady()))
}

fn passed() -> Duration {
    let (_, steady) = began();
    SystemClock.steady().saturating_sub(steady) * TIMES
}

impl Clock for HurriedClock {
    fn now(&self) -> Timestamp {
        began().0.plus_millis(i64::try_from(passed().as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(duration / TIMES)
    }

    fn steady(&self) -> Duration {
        passed()
    }
}
