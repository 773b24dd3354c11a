//! When a runner looks for messages, and what of that is under way.

use std::future::pending;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use crate::Result;
use crate::hot::Pulled;

/// Waits after failures of the store: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a pull brought.
pub(super) struct Brought {
    pub(super) begun: Instant,
    /// For how many messages.
    pub(super) wanted: u32,
    pub(super) pulled: Result<Pulled>,
}

pub(super) type Slot<T> = Option<BoxFuture<'static, T>>;

/// When to look for messages, and what of that is under way.
#[derive(Default)]
pub(super) struct Polling {
    pub(super) pull: Slot<Brought>,
    pub(super) wait: Slot<Result<()>>,
    /// Look again, there may be something.
    pub(super) look: bool,
    pub(super) due: Option<Instant>,
    /// The store failed: not before then.
    pub(super) not_before: Option<Instant>,
    pub(super) failures: u32,
}

impl Polling {
    /// After a failure of the store: again, after a while that grows.
    pub(super) fn back_off(&mut self) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        self.failures += 1;
        self.not_before = Some(Instant::now() + wait);
        self.look = true;
    }
}

/// The result of what is under way, if something is. It may be dropped without breaking that off.
pub(super) async fn finished<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(future) => {
            let result = future.await;
            *slot = None;
            result
        }
        None => pending().await,
    }
}

/// At this time, or never.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
