//! What spares writes the wait for a document store that is away.
//!
//! A driver waits for a server that does not answer, by default half a minute, before a write fails. With a spool
//! every write would wait so long before it is queued. So after an attempt that failed slowly those that follow go
//! to the spool at once, for [`OPEN_FOR`]; then one is let through, and what becomes of it decides for the others.
//! What fails fast costs no wait, and changes nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::millis;
use crate::{Clock, Error, ErrorKind, Result, Timestamp};

/// So long after an attempt that failed slowly none is made.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(5);
/// An attempt that took so long was a wait for a server.
const SLOW: Duration = Duration::from_secs(1);

/// The state of one document store, as the writes of this process found it.
#[derive(Debug)]
pub(crate) struct Breaker {
    clock: Arc<dyn Clock>,
    /// The last failure, while the store is away, and when the next attempt is due.
    away: Mutex<Option<(Error, Timestamp)>>,
}

impl Breaker {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, away: Mutex::new(None) }
    }

    /// Why no attempt is to be made now. Once it is time, the first caller gets none, and the others still do until
    /// that attempt has ended.
    pub(crate) fn refuses(&self) -> Option<Error> {
        let now = self.clock.now();
        let mut away = self.away.lock();
        let (error, again_at) = away.as_mut()?;
        let left = again_at.as_millis().saturating_sub(now.as_millis());
        // A clock that went back makes nobody wait longer.
        if left > 0 && left <= millis(OPEN_FOR) {
            return Some(error.clone());
        }
        *again_at = now.plus(OPEN_FOR);
        None
    }

    /// Makes an attempt, and takes in what became of it.
    pub(crate) async fn watch<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let began = self.clock.now();
        let done = attempt.await;
        let now = self.clock.now();
        let mut away = self.away.lock();
        match &done {
            Err(error) if is_away(error) => {
                let took = now.as_millis().saturating_sub(began.as_millis());
                if took >= millis(SLOW) || away.is_some() {
                    *away = Some((error.clone(), now.plus(OPEN_FOR)));
                }
            }
            // It may not have come to the store.
            Err(error) if error.kind() == ErrorKind::Validation => {}
            _ => *away = None,
        }
        done
    }
}

fn is_away(error: &Error) -> bool {
    error.kind() == ErrorKind::Database && (error.is_retryable() || error.is_undecided())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(AtomicI64);

    impl Hand {
        fn advance(&self, millis: i64) {
            self.0.fetch_add(millis, Ordering::SeqCst);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::SeqCst))
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            futures::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn after_a_slow_failure_one_attempt_in_five_seconds_is_made() {
        let clock = Arc::new(Hand::default());
        let breaker = Breaker::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let fail = |took: i64, error: Error| {
            let clock = Arc::clone(&clock);
            async move {
                clock.advance(took);
                Err::<(), _>(error)
            }
        };
        let away = || Error::database("no server").retryable();
        for (took, error) in
            [(999, away()), (5_000, Error::database("broken")), (5_000, Error::not_found("no"))]
        {
            breaker.watch(fail(took, error)).await.unwrap_err();
            assert!(breaker.refuses().is_none());
        }
        breaker.watch(fail(1_000, away())).await.unwrap_err();
        assert_eq!(breaker.refuses().unwrap().message(), "no server");
        clock.advance(5_000);
        assert!(breaker.refuses().is_none(), "one tries");
        assert!(breaker.refuses().is_some(), "the others wait for it");
        breaker.watch(fail(0, away())).await.unwrap_err();
        assert!(breaker.refuses().is_some());
        clock.advance(5_000);
        assert!(breaker.refuses().is_none());
        breaker.watch(async { Ok(()) }).await.unwrap();
        assert!(breaker.refuses().is_none() && breaker.refuses().is_none(), "it is back");
        breaker.watch(fail(1_000, away())).await.unwrap_err();
        clock.advance(-100_000);
        assert!(breaker.refuses().is_none(), "the clock went back");
    }
}
