//! Keys and buckets that every storage takes.

use object_store::path::Path as StorePath;

use super::local;
use crate::{Error, Result};

/// The strictest rules of all storages, so that what one of them takes every other one takes too.
pub(super) fn object_path(key: &str) -> Result<StorePath> {
    let refuse = |why: &str| {
        let shown: String = key.chars().take(80).collect();
        Err(Error::validation(format!("`{}` is not a usable object key: {why}", shown.escape_debug())))
    };
    if key.is_empty() || key.len() > 1024 {
        return refuse("it must have 1 to 1024 bytes");
    }
    if key.contains(|c: char| c == '\\' || c.is_control()) {
        return refuse("it holds a backslash or a control character");
    }
    for segment in key.split('/') {
        if segment.is_empty() || segment.ends_with('.') || segment.len() > 240 {
            return refuse("a part between slashes is empty, ends with a dot or is longer than 240 bytes");
        }
        // Files of such names are object_store's unfinished puts.
        if local::is_unfinished(segment) {
            return refuse("a part between slashes ends with # and digits");
        }
    }
    StorePath::parse(key).or_else(|error| refuse(&error.to_string()))
}

/// A name that every storage and file system takes and that stays one segment of a URL or path.
pub(super) fn check_bucket(bucket: &str) -> Result<()> {
    let fine = (1..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bucket.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && !bucket.contains("..");
    if fine {
        return Ok(());
    }
    let shown: String = bucket.chars().take(80).collect();
    Err(Error::validation(format!(
        "the bucket name `{}` must be 1 to 63 letters, digits, `-`, `_` or single `.`, the first a letter or digit",
        shown.escape_debug()
    )))
}
