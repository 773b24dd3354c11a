//! Where every random choice of a run comes from: its seed.
//!
//! The engine takes ids and jitter from its `Random`. What is left are the hash maps of std and of
//! dependencies, whose order is drawn from the operating system once a thread: std asks the weak symbol
//! `getrandom`, so that a program can stand in for it, and this one does on the threads of runs.

use std::cell::Cell;
use std::io::Read as _;

use parking_lot::Mutex;

thread_local! {
    static OWNED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The odd number nearest to 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit over all others (the finalizer of SplitMix64).
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From now on this thread's randomness follows from the seed. Of use before its first hash map alone.
pub fn own_this_thread(seed: u64) {
    OWNED.set(Some(mix(seed)));
}

/// Fills a buffer as the C library's function of this name does; on the thread of a run, from its seed.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes.
#[allow(unsafe_code, unreachable_pub, reason = "stands in for a function of the C library")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    let mut bytes = vec![0; length];
    if let Some(state) = OWNED.get() {
        let mut state = state;
        for byte in &mut bytes {
            state = state.wrapping_add(STEP);
            *byte = mix(state).to_be_bytes()[0];
        }
        OWNED.set(Some(state));
    } else if std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).is_err() {
        return -1;
    }
    for (at, byte) in bytes.into_iter().enumerate() {
        // SAFETY: `at` is below `length`, for which the caller vouches.
        unsafe { buffer.add(at).write(byte) };
    }
    length.cast_signed()
}

/// The choices of one run, in the order in which they are asked for.
#[derive(Debug)]
pub struct Chance(Mutex<u64>);

impl Chance {
    /// Begins at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(mix(seed ^ STEP)))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(STEP);
        mix(*state) % limit
    }

    /// True `per_mille` times in a thousand.
    pub fn hits(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    /// One of them.
    pub fn pick<'t, T>(&self, of: &'t [T]) -> Option<&'t T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }

    /// Few are large: a number below `limit`, of which small ones are likelier.
    pub fn skewed(&self, limit: u64) -> u64 {
        let bound = 1 + self.below(limit);
        self.below(bound)
    }
}
