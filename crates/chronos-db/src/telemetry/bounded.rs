//! Series whose labels come from users: as many as there are names, up to a bound.

use std::collections::HashMap;
use std::hash::Hash;

use metrics::Gauge;
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

/// Gauges by their labels: names beyond the bound have one series together, the sum of their values.
pub(super) struct BoundedGauges<K> {
    named: Bounded<K, Gauge>,
    rest: Mutex<Rest<K>>,
}

struct Rest<K> {
    values: HashMap<K, i64>,
    sum: i64,
}

impl<K> Default for BoundedGauges<K> {
    fn default() -> Self {
        let rest = Rest { values: HashMap::new(), sum: 0 };
        Self { named: Bounded::default(), rest: Mutex::new(rest) }
    }
}

impl<K: Eq + Hash + Clone> BoundedGauges<K> {
    /// Sets the value of a name; `other` is the series of those beyond the bound.
    pub(super) fn set(
        &self,
        name: &K,
        value: i64,
        make: impl FnOnce() -> Gauge,
        other: impl FnOnce() -> Gauge,
    ) {
        // Values are far below where floats have holes.
        if let Some(gauge) = self.named.get(name, make) {
            return gauge.set(value as f64);
        }
        let mut rest = self.rest.lock();
        let before = rest.values.insert(name.clone(), value).unwrap_or(0);
        rest.sum = rest.sum.saturating_add(value).saturating_sub(before);
        other().set(rest.sum as f64);
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
