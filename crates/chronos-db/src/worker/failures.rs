//! What failed, and when it is tried again.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::Timestamp;

/// The wait after the first failure; it doubles with each.
const FIRST_WAIT_MILLIS: i64 = 5_000;
const LONGEST_WAIT_MILLIS: i64 = 600_000;
/// Failures that are remembered. What is beyond is tried each round.
const MAX: usize = 10_000;

/// A job that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// How often it failed in a row.
    pub(super) tries: u32,
    again_at: Timestamp,
}

/// The jobs that failed the last time they ran, by their target and name.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<(String, &'static str), Attempt>>);

impl Failures {
    /// Whether it never failed, or has waited long enough. A clock that went back makes nobody wait longer
    /// than the longest wait.
    pub(super) fn may_try(&self, target: &str, job: &'static str, now: Timestamp) -> bool {
        self.0.lock().get(&(target.to_owned(), job)).is_none_or(|attempt| {
            let left = attempt.again_at.as_millis().saturating_sub(now.as_millis());
            left <= 0 || left > LONGEST_WAIT_MILLIS
        })
    }

    pub(super) fn failed(&self, target: &str, job: &'static str, now: Timestamp) -> Attempt {
        let mut known = self.0.lock();
        let key = (target.to_owned(), job);
        let tries = known.get(&key).map_or(1, |attempt| attempt.tries.saturating_add(1));
        let wait = FIRST_WAIT_MILLIS.saturating_mul(1_i64 << (tries - 1).min(16)).min(LONGEST_WAIT_MILLIS);
        let attempt = Attempt { tries, again_at: now.plus_millis(wait) };
        if known.len() < MAX || known.contains_key(&key) {
            known.insert(key, attempt);
        }
        attempt
    }

    /// Lets the next round try it again.
    pub(super) fn at_once(&self, target: &str, job: &'static str) {
        if let Some(attempt) = self.0.lock().get_mut(&(target.to_owned(), job)) {
            attempt.again_at = Timestamp::from_millis(i64::MIN);
        }
    }

    /// Lets everything be tried again.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Forgets that it failed; whether it had.
    pub(super) fn succeeded(&self, target: &str, job: &'static str) -> bool {
        let failed = self.0.lock().remove(&(target.to_owned(), job));
        if let Some(attempt) = failed {
            tracing::info!(job, target, tries = attempt.tries, "a job of the worker that failed works again");
        }
        failed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_after_growing_waits() {
        let failures = Failures::default();
        let at = Timestamp::from_millis;
        let mut now = 0;
        for wait in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000] {
            assert!(failures.may_try("a", "flush", at(now)));
            failures.failed("a", "flush", at(now));
            assert!(!failures.may_try("a", "flush", at(now + wait - 1)), "{wait}");
            assert!(failures.may_try("a", "trim", at(now)) && failures.may_try("b", "flush", at(now)));
            now += wait;
        }
        assert!(failures.may_try("a", "flush", at(now - 10_000_000)), "the clock went back");
        assert!(failures.succeeded("a", "flush") && !failures.succeeded("a", "flush"));
        assert_eq!(failures.failed("a", "flush", at(now)).tries, 1);
    }
}
