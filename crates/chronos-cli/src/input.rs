//! JSON that people hand in: arguments, files, standard input.

use std::fs;
use std::io::{self, Read as _};

use chronos_db::Json;

use crate::failure::Failure;

/// The mark some editors begin files with. It is part of the encoding, not of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The first bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// `bytes` without a byte order mark at its beginning.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Why bytes that begin so are not JSON, where that can be said better than a parser does.
pub(crate) fn not_json(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [] => Some("it is empty"),
        bytes if bytes.starts_with(&GZIP) => {
            Some("it is compressed with gzip; unpack it first (`gunzip -c FILE | chronos … -`)")
        }
        _ => None,
    }
}

/// Parses JSON; `what` names it in the error.
pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Json, Failure> {
    let text = without_mark(bytes).trim_ascii();
    if let Some(why) = not_json(text) {
        return Err(Failure::wrong(format!("{what}: invalid JSON: {why}")));
    }
    Json::parse(text).map_err(|error| Failure::wrong(format!("{what}: invalid JSON: {error}")))
}

/// Reads all of a file, or of standard input if it is `-`.
pub(crate) fn read(from: &str) -> io::Result<Vec<u8>> {
    if from != "-" {
        return fs::read(from);
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a document: JSON itself, a file, or `-` for standard input.
pub(crate) fn document(given: &str) -> Result<Json, Failure> {
    json(given, "the document")
}

/// Reads JSON itself, a file, or `-` for standard input; `what` names it in errors.
pub(crate) fn json(given: &str, what: &str) -> Result<Json, Failure> {
    if matches!(without_mark(given.as_bytes()).trim_ascii_start(), [b'{' | b'[', ..]) {
        return parse(given.as_bytes(), what);
    }
    let unreadable = |error| {
        Failure::wrong(format!("{given}: {what} is neither JSON nor a file that can be read: {error}"))
    };
    parse(&read(given).map_err(unreadable)?, given)
}
