//! Random numbers from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// A small random source that is the same everywhere.
#[derive(Clone, Debug)]
pub(in super::super) struct Chance(u64);

impl Chance {
    pub(in super::super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let given = std::env::var("CHRONOW_SEED").ok().and_then(|seed| seed.parse().ok());
        let fresh = || {
            use std::hash::{BuildHasher as _, RandomState};
            RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
        };
        let seed = given.unwrap_or_else(fresh);
        // Shown by the test runner if the test fails.
        #[allow(clippy::print_stdout, reason = "a seed must be seen to be run again")]
        {
            println!("CHRONOW_SEED={seed}");
        }
        Self(seed)
    }

    /// Another source, for an actor beside.
    pub(in super::super) fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(in super::super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}
