//! Series whose labels come from users: as many as there are names, up to a bound.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// Names that have a series of their own.
pub(super) const MAX_NAMES: usize = 200;
/// Stands for all names beyond it.
pub(super) const OTHER: &str = "_other";

/// Handles by their labels.
pub(super) struct Bounded<K, H> {
    known: Mutex<HashMap<K, H>>,
}

impl<K, H> Default for Bounded<K, H> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone, H: Clone> Bounded<K, H> {
    /// The handle of a name, made by `make` when it is first asked for; none if there are too many names.
    pub(super) fn get(&self, name: &K, make: impl FnOnce() -> H) -> Option<H> {
        let mut known = self.known.lock();
        if let Some(handle) = known.get(name) {
            return Some(handle.clone());
        }
        if known.len() >= MAX_NAMES {
            return None;
        }
        let handle = make();
        known.insert(name.clone(), handle.clone());
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_have_no_series_of_their_own() {
        let bounded = Bounded::default();
        for n in 0..MAX_NAMES {
            assert_eq!(bounded.get(&n, || n), Some(n));
        }
        assert_eq!(bounded.get(&MAX_NAMES, || MAX_NAMES), None);
        assert_eq!(bounded.get(&7, || 0), Some(7), "a known name keeps its series");
    }
}
