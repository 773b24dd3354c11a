//! How a record of a narrower tier is laid over that of a wider one.

use std::collections::HashMap;
use std::hash::RandomState;

use crate::Json;

/// What a merge of tiers does about arrays, and about what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MergeOptions {
    /// Of equal elements of arrays that meet, the first stays alone.
    pub(super) dedupe_arrays: bool,
    /// What the wider tier says stays.
    pub(super) preserve_existing: bool,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self { dedupe_arrays: true, preserve_existing: false }
    }
}

/// Lays `narrower` over `target`: objects meet property by property, arrays are put together, and of
/// everything else the narrower one stays, null too.
pub(super) fn overlay(target: &mut Json, narrower: &Json, options: MergeOptions) {
    match (target, narrower) {
        (Json::Object(target), Json::Object(narrower)) => {
            for (key, value) in narrower {
                match target.get_mut(key) {
                    Some(existing) => overlay(existing, value, options),
                    None => drop(target.insert(key.clone(), value.clone())),
                }
            }
        }
        (Json::Array(target), Json::Array(narrower)) => {
            target.extend(narrower.iter().cloned());
            if options.dedupe_arrays {
                dedupe(target);
            }
        }
        (target, narrower) => {
            if !options.preserve_existing {
                *target = narrower.clone();
            }
        }
    }
}

/// Keeps the first of equal elements.
fn dedupe(items: &mut Vec<Json>) {
    let state = RandomState::new();
    let mut seen: HashMap<u64, Vec<Json>> = HashMap::with_capacity(items.len());
    items.retain(|item| {
        let alike = seen.entry(item.fingerprint(&state)).or_default();
        let is_new = !alike.contains(item);
        if is_new {
            alike.push(item.clone());
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn merged(tiers: &[Json], options: MergeOptions) -> Json {
        let mut target = tiers[0].clone();
        tiers[1..].iter().for_each(|tier| overlay(&mut target, tier, options));
        target
    }

    /// D-06.
    #[test]
    fn the_narrower_tier_wins_and_arrays_are_united_in_the_order_they_are_first_seen() {
        let tiers = [
            json!({"theme": "light", "features": ["basic", "standard"], "limits": {"requests": 1000, "storage": 10, "users": 100}, "settings": {"timeout": 30, "retries": 3}}),
            json!({"features": ["standard", "advanced", "analytics"], "limits": {"requests": 10000}, "settings": {"timeout": 60}}),
            json!({"theme": "dark", "features": ["premium", "priority"], "limits": {"requests": 50000, "users": 10000}, "settings": {"retries": 5}}),
        ];
        assert_eq!(
            merged(&tiers, MergeOptions::default()),
            json!({
                "theme": "dark",
                "features": ["basic", "standard", "advanced", "analytics", "premium", "priority"],
                "limits": {"requests": 50000, "storage": 10, "users": 10000},
                "settings": {"timeout": 60, "retries": 5},
            })
        );
    }

    #[test]
    fn null_wins_and_objects_in_arrays_are_equal_by_value_alone() {
        let tiers = [
            json!({"a": 1, "rules": [{"id": "x", "n": 1}, {"r": 1, "s": 2}], "one": [1], "other": 1}),
            json!({"a": null, "rules": [{"id": "x", "n": 2}, {"s": 2, "r": 1}], "one": 2, "other": [2]}),
        ];
        assert_eq!(
            merged(&tiers, MergeOptions::default()),
            json!({"a": null, "rules": [{"id": "x", "n": 1}, {"r": 1, "s": 2}, {"id": "x", "n": 2}], "one": 2, "other": [2]})
        );
    }

    #[test]
    fn arrays_may_keep_every_element_and_wider_tiers_what_they_say() {
        let tiers = [
            json!({"a": 1, "l": [1, 2], "o": {"x": 1}}),
            json!({"a": 2, "l": [2, 3], "o": {"x": 2, "y": 3}}),
        ];
        let all = MergeOptions { dedupe_arrays: false, ..MergeOptions::default() };
        assert_eq!(merged(&tiers, all), json!({"a": 2, "l": [1, 2, 2, 3], "o": {"x": 2, "y": 3}}));
        let wider = MergeOptions { preserve_existing: true, ..MergeOptions::default() };
        assert_eq!(merged(&tiers, wider), json!({"a": 1, "l": [1, 2, 3], "o": {"x": 1, "y": 3}}));
    }
}
