//! Names are checked once, at the edge, so that none can escape its folder, bucket prefix or key.

use crate::{Error, Result};

/// The longest name, in bytes: what fits a file name and leaves room for a MongoDB namespace.
pub const MAX_NAME_BYTES: usize = 100;

/// Checks a name of a tenant, domain, database or collection. `what` says in the error which one it is.
///
/// # Errors
/// `VALIDATION_ERROR` if it is empty, longer than [`MAX_NAME_BYTES`], starts with `.`, or holds `/`, `\`,
/// `..`, `$`, NUL or another control character.
pub fn validate_name<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    let shown = || name.chars().take(40).collect::<String>().escape_debug().to_string();
    if name.is_empty() {
        return Err(Error::validation(format!("the {what} is empty")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::validation(format!(
            "the {what} `{}…` has {} bytes; {MAX_NAME_BYTES} are allowed",
            shown(),
            name.len()
        )));
    }
    let refused = |c: char| matches!(c, '/' | '\\' | '$') || c.is_control();
    if name.starts_with('.') || name.contains("..") || name.chars().any(refused) {
        return Err(Error::validation(format!(
            "the {what} `{}` may not start with `.` or hold `/`, `\\`, `..`, `$` or control characters",
            shown()
        )));
    }
    Ok(name)
}
