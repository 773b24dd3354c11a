//! The library's own headers.

use std::collections::BTreeMap;

/// Headers that begin so are ours: they hold what a copy has beside its payload.
pub(crate) const OWN_HEADERS: &str = "cw-";

/// Takes out of headers what is the library's own business.
pub(crate) fn strip(headers: &mut BTreeMap<String, String>) {
    if headers.keys().any(|name| name.starts_with(OWN_HEADERS)) {
        headers.retain(|name, _| !name.starts_with(OWN_HEADERS));
    }
}
