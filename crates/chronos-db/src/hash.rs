//! Picking one of several backends by a key, the same one in every process.

use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind, Result};

/// Highest random weight: the backend whose `<key>|<id>` hashes highest, the first one on ties.
///
/// Adding a backend moves only the keys the new one wins; removing one moves only its own.
pub(crate) fn rendezvous(key: &str, backends: &[impl AsRef<str>]) -> Result<usize> {
    let mut best: Option<(u64, usize)> = None;
    for (index, backend) in backends.iter().enumerate() {
        let score = score(key, backend.as_ref());
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, index));
        }
    }
    best.map(|(_, index)| index).ok_or_else(no_backends)
}

/// Jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014):
/// growing from n to n + 1 backends moves one key in n + 1.
pub(crate) fn jump(key: &str, backends: usize) -> Result<usize> {
    if backends == 0 {
        return Err(no_backends());
    }
    let mut state = leading_u64(Sha256::new().chain_update(key));
    let (mut bucket, mut next) = (0_usize, 0_usize);
    while next < backends {
        bucket = next;
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // The published algorithm computes in doubles; 31 random bits divide exactly.
        let random = ((state >> 33) + 1) as f64 / (1_u64 << 31) as f64;
        next = ((bucket as f64 + 1.0) / random) as usize;
    }
    Ok(bucket)
}

fn score(key: &str, backend: &str) -> u64 {
    leading_u64(Sha256::new().chain_update(key).chain_update("|").chain_update(backend))
}

fn leading_u64(hasher: Sha256) -> u64 {
    hasher.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

pub(crate) fn no_backends() -> Error {
    Error::new(ErrorKind::RouteNotFound, "No backends available for routing")
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: [&str; 3] = ["backend-1", "backend-2", "backend-3"];

    #[test]
    fn rendezvous_picks_what_the_original_picked() {
        assert_eq!(score("key1", "backend-1"), 18_171_235_292_456_342_152);
        let vectors = [
            ("key1", 0),
            ("key2", 2),
            ("key3", 0),
            ("tenant-a", 2),
            ("tenant-b", 1),
            ("chronos_db", 0),
            ("users:", 2),
        ];
        for (key, index) in vectors {
            assert_eq!(rendezvous(key, &THREE).unwrap(), index, "{key}");
        }
        let v1 = [
            "mongodb://a:27017|https://nyc3.digitaloceanspaces.com|json-a",
            "mongodb://b:27017|https://ams3.digitaloceanspaces.com|json-b",
        ];
        for (key, index) in [("tenant-1", 1), ("tenant-2", 0), ("myapp", 0)] {
            assert_eq!(rendezvous(key, &v1).unwrap(), index, "{key}");
        }
    }

    #[test]
    fn the_first_backend_wins_a_tie() {
        assert_eq!(rendezvous("key1", &["same", "same"]).unwrap(), 0);
    }

    #[test]
    fn one_backend_takes_every_key_and_none_is_an_error() {
        assert_eq!(rendezvous("anything", &["only"]).unwrap(), 0);
        assert_eq!(jump("anything", 1).unwrap(), 0);
        for error in [rendezvous("k", &[] as &[&str]).unwrap_err(), jump("k", 0).unwrap_err()] {
            assert_eq!(error.message(), "No backends available for routing");
        }
    }

    #[test]
    fn losing_a_backend_moves_only_its_own_keys() {
        for n in 0..1000 {
            let key = format!("key-{n}");
            let before = rendezvous(&key, &THREE).unwrap();
            let after = rendezvous(&key, &THREE[..2]).unwrap();
            assert!(before == 2 || before == after, "{key}");
        }
    }

    #[test]
    fn jump_stays_in_range_and_moves_keys_only_to_the_new_backend() {
        for n in 0..2000 {
            let key = format!("key-{n}");
            let mut last = 0;
            for backends in 1..12 {
                let index = jump(&key, backends).unwrap();
                assert!(index < backends);
                assert!(
                    index == last || index == backends - 1,
                    "{key} went from {last} to {index} of {backends}"
                );
                last = index;
            }
        }
    }
}
