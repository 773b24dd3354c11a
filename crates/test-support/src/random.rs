use std::sync::atomic::{AtomicU64, Ordering};

use bson::oid::ObjectId;
use chronos_db::Random;

/// The odd number nearest to 2^64 divided by the golden ratio: adding it again and again visits every number
/// once, well spread.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where the seconds of the identifiers start: any date that looks like one.
const EPOCH_SECONDS: u32 = 1_700_000_000;

/// A random source that gives the same numbers and identifiers for the same seed, in the order of the calls.
///
/// Identifiers grow with every call and differ between seeds.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    state: AtomicU64,
    identifiers: AtomicU64,
}

impl SeededRandom {
    /// The source of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: AtomicU64::new(mix(seed)), identifiers: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    /// Seconds, the seed's five bytes, a counter: the parts of an ordinary identifier.
    fn object_id(&self) -> ObjectId {
        let count = self.identifiers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let carry = u32::from_be_bytes([count[1], count[2], count[3], count[4]]);
        let process = mix(self.seed ^ STEP).to_be_bytes();
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&EPOCH_SECONDS.wrapping_add(carry).to_be_bytes());
        bytes[4..9].copy_from_slice(&process[..5]);
        bytes[9..].copy_from_slice(&count[5..]);
        ObjectId::from_bytes(bytes)
    }

    fn next_u64(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }
}

/// Spreads every bit over all others, without collisions (the finalizer of SplitMix64).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
