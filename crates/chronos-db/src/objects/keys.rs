//! The layout of keys in a bucket: builders, and parsers that are their exact inverse.
//!
//! ```text
//! <collection>/<id>/v<ov>/item.json
//! <collection>/<id>/v<ov>/<property>/blob.bin
//! <collection>/<id>/v<ov>/<property>/text.txt
//! __manifests__/<collection>/<YYYY>/<MM>/snapshot-<cv><18 digits>.json.gz
//! __backups__/<database>/<collection>/<whose>/…
//! __copies__/<collection>/<database>
//! ```
//!
//! A suffix before the extension (`item.<suffix>.json`) tells apart what could otherwise meet at one key, as what was
//! stored before its commit. Manifests have 18 random digits behind their number instead, so that the name stays one
//! number: no two attempts, in whatever databases that share a bucket, have one key. (Earlier versions of this library
//! wrote `snapshot-<cv>.json.gz` and `snapshot-<cv>.<suffix>.json.gz`.)
//!
//! * Collections are lower-cased. `Users` and `users` share a prefix and never a key, because ids are unique
//!   among all collections.
//! * Ids of 24 hex digits are lower-cased (either case is the same id), all others keep their case.
//! * Properties keep their case: `fileA` and `filea` are two.
//! * In collections, ids and properties every character but letters, digits, `-`, `_` and `.` is
//!   percent-encoded (UTF-8, upper-case hex), and so is a `.` at their start or end. No name is then `.`,
//!   `..`, hidden or more than one path segment.
//! * A name whose encoded form is longer than [`MAX_SEGMENT_BYTES`] is refused: it would not fit a file name.

use std::fmt::Write as _;

use crate::{Error, Result};

/// The longest encoded name in a key, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 200;

/// The first segment of all manifests, and therefore no collection's name.
pub const MANIFESTS: &str = "__manifests__";

/// The first segment of all backups, and therefore no collection's name.
pub const BACKUPS: &str = "__backups__";

/// The first segment of what says that a bucket holds copies, and therefore no collection's name.
pub const COPIES: &str = "__copies__";

const MAX_SUFFIX_BYTES: usize = 32;

/// How many digits behind the number of a manifest are random.
const RANDOM_DIGITS: usize = 18;

/// What the key of an item.json says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// The collection, lower-cased.
    pub collection: String,
    /// The item.
    pub id: String,
    /// Its version.
    pub ov: i64,
    /// What tells it from other objects of that version.
    pub suffix: Option<String>,
}

/// Which rendition of an externalised property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rendition {
    /// The decoded bytes: `blob.bin`.
    Blob,
    /// Their text: `text.txt`.
    Text,
}

/// What the key of an externalised property says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PropertyKey {
    /// The collection, lower-cased.
    pub collection: String,
    /// The item.
    pub id: String,
    /// Its version.
    pub ov: i64,
    /// The property's path in the document.
    pub property: String,
    /// Which of its objects.
    pub rendition: Rendition,
    /// What tells it from other objects of that property.
    pub suffix: Option<String>,
}

/// What the key of a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManifestKey {
    /// The collection, lower-cased.
    pub collection: String,
    /// The year, 1000 to 9999.
    pub year: i16,
    /// The month, 1 to 12.
    pub month: i8,
    /// The cv it was made at.
    pub cv: i64,
    /// The random number that makes it the key of one attempt; earlier versions of this library wrote none.
    pub attempt: Option<u64>,
    /// What tells it from manifests of other databases in the bucket, where no attempt does.
    pub suffix: Option<String>,
}

/// Returns the key of a version's item.json.
///
/// # Errors
/// `VALIDATION_ERROR` for an empty or too long name, a negative version or a suffix of other than letters and
/// digits.
///
/// ```
/// use chronos_db::objects::keys;
/// assert_eq!(keys::item("Users", "65f0a1b2c3d4e5f60718293A", 3, None)?, "users/65f0a1b2c3d4e5f60718293a/v3/item.json");
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn item(collection: &str, id: &str, ov: i64, suffix: Option<&str>) -> Result<String> {
    Ok(version_prefix(collection, id, ov)? + &file("item", suffix, "json")?)
}

/// Returns the key of an externalised property of a version.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`item`].
pub fn property(
    collection: &str,
    id: &str,
    ov: i64,
    property: &str,
    rendition: Rendition,
    suffix: Option<&str>,
) -> Result<String> {
    let mut key = version_prefix(collection, id, ov)?;
    push_segment(&mut key, "property", property)?;
    key.push('/');
    let (stem, extension) = rendition.file();
    Ok(key + &file(stem, suffix, extension)?)
}

/// Returns the key of a manifest that one attempt writes, of which the last 18 digits of `random` make it its own.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`manifest`].
///
/// ```
/// use chronos_db::objects::keys;
/// let key = keys::manifest_of_attempt("users", 2024, 3, 123, 77)?;
/// assert_eq!(key, "__manifests__/users/2024/03/snapshot-123000000000000000077.json.gz");
/// assert_eq!(keys::parse_manifest(&key).map(|key| (key.cv, key.attempt)), Some((123, Some(77))));
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn manifest_of_attempt(collection: &str, year: i16, month: i8, cv: i64, random: u64) -> Result<String> {
    if cv < 0 {
        return Err(Error::validation(format!("a cv of {cv} is negative")));
    }
    let random = random % 10_u64.pow(RANDOM_DIGITS as u32);
    let name = format!("snapshot-{cv}{random:0width$}", width = RANDOM_DIGITS);
    Ok(manifests_of_month(collection, year, month)? + &file(&name, None, "json.gz")?)
}

/// Returns the key of a manifest as earlier versions of this library wrote it.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`item`], and for a year out of 1000..=9999, a month out of 1..=12 or a negative
/// cv.
pub fn manifest(collection: &str, year: i16, month: i8, cv: i64, suffix: Option<&str>) -> Result<String> {
    if cv < 0 {
        return Err(Error::validation(format!("a cv of {cv} is negative")));
    }
    Ok(manifests_of_month(collection, year, month)? + &file(&format!("snapshot-{cv}"), suffix, "json.gz")?)
}

/// Returns the prefix of everything a collection stores, but its manifests.
///
/// # Errors
/// `VALIDATION_ERROR` for an empty, reserved or too long name.
pub fn collection_prefix(collection: &str) -> Result<String> {
    if let Some(reserved) = [MANIFESTS, BACKUPS, COPIES]
        .into_iter()
        .find(|reserved| collection.trim().eq_ignore_ascii_case(reserved))
    {
        return Err(Error::validation(format!("the collection name `{reserved}` is reserved")));
    }
    let mut key = String::with_capacity(96);
    push_segment(&mut key, "collection", &collection.to_lowercase())?;
    key.push('/');
    Ok(key)
}

/// Returns the prefix of everything an item stores, properties included.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`item`].
pub fn item_prefix(collection: &str, id: &str) -> Result<String> {
    let mut key = collection_prefix(collection)?;
    let is_object_id = id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_object_id {
        push_segment(&mut key, "id", &id.to_ascii_lowercase())?;
    } else {
        push_segment(&mut key, "id", id)?;
    }
    key.push('/');
    Ok(key)
}

/// Returns the prefix of everything one version of an item stores.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`item`].
pub fn version_prefix(collection: &str, id: &str, ov: i64) -> Result<String> {
    if ov < 0 {
        return Err(Error::validation(format!("a version of {ov} is negative")));
    }
    let mut key = item_prefix(collection, id)?;
    // Writing to a String cannot fail.
    let _ = write!(key, "v{ov}/");
    Ok(key)
}

/// Returns the prefix of a collection's manifests.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`collection_prefix`].
pub fn manifests_prefix(collection: &str) -> Result<String> {
    Ok(format!("{MANIFESTS}/{}", collection_prefix(collection)?))
}

/// Returns the prefix of the backups of a collection, of what one kind of handle sees of it (`whose`).
///
/// # Errors
/// `VALIDATION_ERROR` as for [`collection_prefix`].
pub fn backups_prefix(database: &str, collection: &str, whose: &str) -> Result<String> {
    let mut key = format!("{BACKUPS}/");
    push_segment(&mut key, "database", database)?;
    key.push('/');
    key += &collection_prefix(collection)?;
    push_segment(&mut key, "tenant", whose)?;
    key.push('/');
    Ok(key)
}

/// Returns the prefix of the marks of a collection that was restored where objects of its name lay already. So what
/// lies there may be of several databases, and of which one no key tells.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`collection_prefix`].
pub fn copies_prefix(collection: &str) -> Result<String> {
    Ok(format!("{COPIES}/{}", collection_prefix(collection)?))
}

/// Returns the key of the mark of a collection that was restored to a database where objects of its name lay already.
///
/// # Errors
/// `VALIDATION_ERROR` for an empty or too long name, or a reserved one.
///
/// ```
/// use chronos_db::objects::keys;
/// assert_eq!(keys::copy("Users", "drill")?, "__copies__/users/drill");
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn copy(collection: &str, database: &str) -> Result<String> {
    let mut key = copies_prefix(collection)?;
    push_segment(&mut key, "database", database)?;
    Ok(key)
}

/// Returns the prefix of a collection's manifests of one month.
///
/// # Errors
/// `VALIDATION_ERROR` as for [`manifest`].
pub fn manifests_of_month(collection: &str, year: i16, month: i8) -> Result<String> {
    if !(1000..=9999).contains(&year) {
        return Err(Error::validation(format!("the year {year} is not between 1000 and 9999")));
    }
    if !(1..=12).contains(&month) {
        return Err(Error::validation(format!("the month {month} is not between 1 and 12")));
    }
    Ok(format!("{}{year:04}/{month:02}/", manifests_prefix(collection)?))
}

/// Reads the key of an item.json; none if it is another key.
#[must_use]
pub fn parse_item(key: &str) -> Option<ItemKey> {
    let (collection, id, ov, rest) = split_version(key)?;
    let suffix = split_file(rest, "item", "json")?;
    let made = item(&collection, &id, ov, suffix).ok()?;
    (made == key).then(|| ItemKey { collection, id, ov, suffix: suffix.map(str::to_owned) })
}

/// Reads the key of an externalised property; none if it is another key.
#[must_use]
pub fn parse_property(key: &str) -> Option<PropertyKey> {
    let (collection, id, ov, rest) = split_version(key)?;
    let (segment, name) = rest.split_once('/')?;
    let path = decode(segment)?;
    let (rendition, suffix) = [Rendition::Blob, Rendition::Text].into_iter().find_map(|rendition| {
        let (stem, extension) = rendition.file();
        Some((rendition, split_file(name, stem, extension)?))
    })?;
    let made = property(&collection, &id, ov, &path, rendition, suffix).ok()?;
    (made == key).then(|| PropertyKey {
        collection,
        id,
        ov,
        property: path,
        rendition,
        suffix: suffix.map(str::to_owned),
    })
}

/// Reads the key of a manifest; none if it is another key.
#[must_use]
pub fn parse_manifest(key: &str) -> Option<ManifestKey> {
    let mut segments = key.strip_prefix(MANIFESTS)?.strip_prefix('/')?.splitn(4, '/');
    let collection = decode(segments.next()?)?;
    let (year, month) = (segments.next()?.parse().ok()?, segments.next()?.parse().ok()?);
    let name = segments.next()?.strip_prefix("snapshot-")?;
    let (cv, _) = name.split_once('.')?;
    let suffix = split_file(name, cv, "json.gz")?;
    let (cv, attempt) =
        match cv.len().checked_sub(RANDOM_DIGITS).filter(|digits| *digits > 0 && suffix.is_none()) {
            Some(digits) => (cv.get(..digits)?, Some(cv.get(digits..)?.parse().ok()?)),
            None => (cv, None),
        };
    let cv = cv.parse().ok()?;
    let made = match attempt {
        Some(random) => manifest_of_attempt(&collection, year, month, cv, random),
        None => manifest(&collection, year, month, cv, suffix),
    };
    (made.ok()? == key).then(|| ManifestKey {
        collection,
        year,
        month,
        cv,
        attempt,
        suffix: suffix.map(str::to_owned),
    })
}

impl Rendition {
    const fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Blob => ("blob", "bin"),
            Self::Text => ("text", "txt"),
        }
    }
}

fn file(stem: &str, suffix: Option<&str>, extension: &str) -> Result<String> {
    let Some(suffix) = suffix else { return Ok(format!("{stem}.{extension}")) };
    if suffix.is_empty()
        || suffix.len() > MAX_SUFFIX_BYTES
        || !suffix.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err(Error::validation(format!(
            "a key's suffix is 1 to {MAX_SUFFIX_BYTES} letters and digits, not `{}`",
            suffix.escape_debug()
        )));
    }
    Ok(format!("{stem}.{suffix}.{extension}"))
}

/// The optional suffix of a file name of this stem and extension. The callers build the key again, which
/// checks what is between.
fn split_file<'a>(name: &'a str, stem: &str, extension: &str) -> Option<Option<&'a str>> {
    let middle = name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(extension)?;
    if middle.is_empty() { Some(None) } else { Some(Some(middle.strip_suffix('.')?)) }
}

fn split_version(key: &str) -> Option<(String, String, i64, &str)> {
    let mut segments = key.splitn(4, '/');
    let (collection, id) = (decode(segments.next()?)?, decode(segments.next()?)?);
    let ov = segments.next()?.strip_prefix('v')?.parse().ok()?;
    Some((collection, id, ov, segments.next()?))
}

fn push_segment(key: &mut String, what: &str, name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::validation(format!("the {what} in a key is empty")));
    }
    let start = key.len();
    let last = name.char_indices().next_back().map_or(0, |(at, _)| at);
    for (at, c) in name.char_indices() {
        let plain =
            if c == '.' { at != 0 && at != last } else { c.is_alphanumeric() || c == '-' || c == '_' };
        if plain {
            key.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(key, "%{byte:02X}");
            }
        }
    }
    if key.len() - start > MAX_SEGMENT_BYTES {
        let shown: String = name.chars().take(40).collect();
        return Err(Error::validation(format!(
            "the {what} `{}…` takes {} bytes in a key; {MAX_SEGMENT_BYTES} are allowed",
            shown.escape_debug(),
            key.len() - start
        )));
    }
    Ok(())
}

/// Undoes the percent-encoding; the callers encode again, which refuses other ways to write the same name.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (high, low) =
                (char::from(*rest.first()?).to_digit(16)?, char::from(*rest.get(1)?).to_digit(16)?);
            rest = &rest[2..];
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
