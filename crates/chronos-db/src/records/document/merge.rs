//! The merge rules of enrichment.
//!
//! Null overwrites, a missing target is set, objects merge key by key, arrays become unions; everything else
//! is replaced. In a union, equal values stand once, and objects with the same `id` (else `_id`) text are one
//! element that merges.

use std::collections::HashMap;
use std::hash::RandomState;

use crate::Json;

/// Merges `patch` into `target`.
///
/// ```
/// use chronos_db::merge;
/// let mut user = chronos_db::json!({"tags": ["user"], "meta": {"plan": "free"}});
/// merge(&mut user, &chronos_db::json!({"tags": ["premium"], "meta": {"since": 2024}}));
/// assert_eq!(user, chronos_db::json!({"tags": ["user", "premium"], "meta": {"plan": "free", "since": 2024}}));
/// ```
pub fn merge(target: &mut Json, patch: &Json) {
    match (target, patch) {
        (Json::Object(target), Json::Object(patch)) => {
            for (key, value) in patch {
                match target.get_mut(key) {
                    Some(existing) => merge(existing, value),
                    None => {
                        target.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Json::Array(target), Json::Array(patch)) => {
            let mut union = Union::of(target);
            patch.iter().for_each(|value| union.add(value));
        }
        (target, Json::Null) => *target = Json::Null,
        (Json::Array(target), single) => Union::of(target).add(single),
        (target, patch) => *target = patch.clone(),
    }
}

/// An array that becomes a union, with what finds its elements: one look at each, however many are added.
struct Union<'a> {
    items: &'a mut Vec<Json>,
    by_identity: HashMap<String, usize>,
    /// The places of elements without identity, by their fingerprints.
    by_value: HashMap<u64, Vec<usize>>,
    state: RandomState,
}

impl<'a> Union<'a> {
    fn of(items: &'a mut Vec<Json>) -> Self {
        let mut union =
            Self { items, by_identity: HashMap::new(), by_value: HashMap::new(), state: RandomState::new() };
        for place in 0..union.items.len() {
            union.note(place);
        }
        union
    }

    /// Makes the element at `place` findable.
    fn note(&mut self, place: usize) {
        let item = &self.items[place];
        if let Some(identity) = identity(item) {
            self.by_identity.entry(identity.to_owned()).or_insert(place);
        } else if !item.is_array() {
            self.by_value.entry(item.fingerprint(&self.state)).or_default().push(place);
        }
    }

    fn add(&mut self, value: &Json) {
        if let Some(identity) = identity(value) {
            if let Some(place) = self.by_identity.get(identity) {
                // What was merged keeps its identity: only a text of the same words can take its place.
                return merge(&mut self.items[*place], value);
            }
        } else if !value.is_array() {
            // Arrays inside arrays have no identity: they are always appended, as the legacy library did.
            let places = self.by_value.get(&value.fingerprint(&self.state));
            if places.is_some_and(|places| places.iter().any(|place| self.items[*place] == *value)) {
                return;
            }
        }
        self.items.push(value.clone());
        self.note(self.items.len() - 1);
    }
}

fn identity(value: &Json) -> Option<&str> {
    value.get("id").and_then(Json::as_str).or_else(|| value.get("_id").and_then(Json::as_str))
}

#[cfg(test)]
mod tests {
    use crate::json;

    use super::*;

    fn merged(target: Json, patch: Json) -> Json {
        let mut target = target;
        merge(&mut target, &patch);
        target
    }

    #[test]
    fn arrays_become_unions_in_first_seen_order() {
        assert_eq!(
            merged(json!({"t": [1, 2, 3]}), json!({"t": [3, 4, 1, 5]})),
            json!({"t": [1, 2, 3, 4, 5]})
        );
        assert_eq!(merged(json!({"t": ["a"]}), json!({"t": "b"})), json!({"t": ["a", "b"]}));
        assert_eq!(merged(json!({"t": "a"}), json!({"t": ["b"]})), json!({"t": ["b"]}));
    }

    #[test]
    fn elements_with_the_same_text_id_merge_and_numeric_ids_are_no_identity() {
        assert_eq!(
            merged(json!([{"id": "x", "a": 1}]), json!([{"id": "x", "b": 2}])),
            json!([{"id": "x", "a": 1, "b": 2}])
        );
        assert_eq!(
            merged(json!([{"_id": "x"}]), json!([{"_id": "x", "b": 2}])),
            json!([{"_id": "x", "b": 2}])
        );
        assert_eq!(
            merged(json!([{"id": 1}]), json!([{"id": 1, "b": 2}])),
            json!([{"id": 1}, {"id": 1, "b": 2}])
        );
        assert_eq!(merged(json!([{"a": 1}]), json!([{"a": 1}])), json!([{"a": 1}]));
    }

    #[test]
    fn equal_numbers_are_one_element_and_keep_their_first_digits() {
        let target = Json::parse(r#"[1.50, 100, {"id": "x", "n": 2}, {"n": 1}]"#).unwrap();
        let patch = Json::parse(r#"[1.5, 1e2, {"n": 1.0}, -0, 0]"#).unwrap();
        assert_eq!(merged(target, patch).to_string(), r#"[1.50,100,{"id":"x","n":2},{"n":1},-0]"#);
    }

    #[test]
    fn a_union_looks_at_each_element_once() {
        // Two hundred thousand and as many more: every one against every other would be forty billion
        // comparisons.
        let numbers = |from: u32| Json::from_iter(from..from + 200_000);
        assert_eq!(merged(numbers(0), numbers(100_000)).as_array().unwrap().len(), 300_000);
        let objects =
            |from: u32| (from..from + 50_000).map(|n| json!({"id": n.to_string(), "n": n})).collect::<Json>();
        assert_eq!(merged(objects(0), objects(25_000)).as_array().unwrap().len(), 75_000);
    }

    #[test]
    fn null_overwrites_and_other_types_replace() {
        assert_eq!(merged(json!({"a": {"b": 1}}), json!({"a": null})), json!({"a": null}));
        assert_eq!(merged(json!({"a": [1]}), json!({"a": null})), json!({"a": null}));
        assert_eq!(merged(json!({"a": [1]}), json!({"a": {"b": 1}})), json!({"a": [1, {"b": 1}]}));
        assert_eq!(merged(json!({"a": 1}), json!({"a": {"b": 1}})), json!({"a": {"b": 1}}));
    }
}
