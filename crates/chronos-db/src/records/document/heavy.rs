//! Work on large documents, away from the threads that everything asynchronous shares.

use crate::json::Map;
use crate::{Error, Json, Result};

/// Documents beyond this size take milliseconds to read, merge, index and write.
pub(crate) const BYTES: usize = 256 * 1024;

/// What a value costs beside its text, about.
const VALUE_BYTES: usize = 8;

/// Does work at once, or if it is heavy where it holds up no other task.
///
/// # Errors
/// `TXN_ERROR` if the runtime shuts down meanwhile.
pub(crate) async fn work<T: Send + 'static>(
    is_heavy: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if !is_heavy {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(stopped) => {
            Error::database("the runtime stopped while a large document was worked on").caused_by(stopped)
        }
    })
}

/// Whether a value is large. Looks no further than it must.
pub(crate) fn is_heavy(value: &Json) -> bool {
    !fits(value, &mut { BYTES })
}

/// As [`is_heavy`], for an object.
pub(crate) fn is_heavy_object(map: &Map) -> bool {
    !all_fit(map, &mut { BYTES })
}

/// Whether the value fits into the bytes that are left, which it uses up.
fn fits(value: &Json, left: &mut usize) -> bool {
    let own = VALUE_BYTES + value.as_str().map_or(0, str::len);
    let Some(rest) = left.checked_sub(own) else { return false };
    *left = rest;
    match value {
        Json::Array(items) => items.iter().all(|item| fits(item, left)),
        Json::Object(map) => all_fit(map, left),
        _ => true,
    }
}

fn all_fit(map: &Map, left: &mut usize) -> bool {
    map.iter().all(|(key, value)| {
        let Some(rest) = left.checked_sub(key.len()) else { return false };
        *left = rest;
        fits(value, left)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_value_is_heavy_by_its_texts_its_keys_or_its_parts() {
        assert!(!is_heavy(&json!({"a": "x".repeat(200_000), "b": [1, 2, 3]})));
        assert!(is_heavy(&json!({"a": "x".repeat(300_000)})));
        assert!(is_heavy(&json!((0..40_000).collect::<Vec<_>>())));
        assert!(is_heavy_object(&(0..30_000).map(|n| (n.to_string(), n)).collect()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn heavy_work_leaves_the_thread() {
        let here = std::thread::current().id();
        assert_ne!(work(true, || std::thread::current().id()).await.unwrap(), here);
        assert_eq!(work(false, || std::thread::current().id()).await.unwrap(), here);
    }
}
