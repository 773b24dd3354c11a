//! The merge rules of enrichment.
//!
//! Null overwrites, a missing target is set, objects merge key by key, arrays become unions; everything else is replaced. In a union, equal values
//! stand once, and objects with the same `id` (else `_id`) text are one element that merges.

use crate::Json;

/// Merges `patch` into `target`.
///
/// ```
/// use chronos_db::merge;
/// let mut user = serde_json::json!({"tags": ["user"], "meta": {"plan": "free"}});
/// merge(&mut user, &serde_json::json!({"tags": ["premium"], "meta": {"since": 2024}}));
/// assert_eq!(user, serde_json::json!({"tags": ["user", "premium"], "meta": {"plan": "free", "since": 2024}}));
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
        (Json::Array(target), Json::Array(patch)) => patch.iter().for_each(|value| add(target, value)),
        (target, Json::Null) => *target = Json::Null,
        (Json::Array(target), single) => add(target, single),
        (target, patch) => *target = patch.clone(),
    }
}

fn add(items: &mut Vec<Json>, value: &Json) {
    if let Some(identity) = identity(value) {
        if let Some(existing) = items.iter_mut().find(|item| self::identity(item) == Some(identity)) {
            return merge(existing, value);
        }
    } else if !value.is_array() && items.contains(value) {
        // Arrays inside arrays have no identity: they are always appended, as the originals did.
        return;
    }
    items.push(value.clone());
}

fn identity(value: &Json) -> Option<&str> {
    value.get("id").and_then(Json::as_str).or_else(|| value.get("_id").and_then(Json::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(target: Json, patch: Json) -> Json {
        let mut target = target;
        merge(&mut target, &patch);
        target
    }

    #[test]
    fn arrays_become_unions_in_first_seen_order() {
        assert_eq!(merged(json!({"t": [1, 2, 3]}), json!({"t": [3, 4, 1, 5]})), json!({"t": [1, 2, 3, 4, 5]}));
        assert_eq!(merged(json!({"t": ["a"]}), json!({"t": "b"})), json!({"t": ["a", "b"]}));
        assert_eq!(merged(json!({"t": "a"}), json!({"t": ["b"]})), json!({"t": ["b"]}));
    }

    #[test]
    fn elements_with_the_same_text_id_merge_and_numeric_ids_are_no_identity() {
        assert_eq!(merged(json!([{"id": "x", "a": 1}]), json!([{"id": "x", "b": 2}])), json!([{"id": "x", "a": 1, "b": 2}]));
        assert_eq!(merged(json!([{"_id": "x"}]), json!([{"_id": "x", "b": 2}])), json!([{"_id": "x", "b": 2}]));
        assert_eq!(merged(json!([{"id": 1}]), json!([{"id": 1, "b": 2}])), json!([{"id": 1}, {"id": 1, "b": 2}]));
        assert_eq!(merged(json!([{"a": 1}]), json!([{"a": 1}])), json!([{"a": 1}]));
    }

    #[test]
    fn null_overwrites_and_other_types_replace() {
        assert_eq!(merged(json!({"a": {"b": 1}}), json!({"a": null})), json!({"a": null}));
        assert_eq!(merged(json!({"a": [1]}), json!({"a": null})), json!({"a": null}));
        assert_eq!(merged(json!({"a": [1]}), json!({"a": {"b": 1}})), json!({"a": [1, {"b": 1}]}));
        assert_eq!(merged(json!({"a": 1}), json!({"a": {"b": 1}})), json!({"a": {"b": 1}}));
    }
}
