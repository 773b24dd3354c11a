//! The total order of values, and its encoding as bytes.
//!
//! [`compare`] is the order in which MongoDB sorts: first by the type's rank, then by value. [`encode`] maps
//! it to bytes of which `memcmp` is the order, so that a store of plain bytes can sort, index and search by
//! it.

use std::cmp::Ordering;

use bson::{Bson, Document, RawBsonRef, RawDocument};
use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::documents::path::{index, split};
use crate::documents::{Direction, raw_bson};

/// The ranks of the types, in the order MongoDB gives them. The gaps keep room without changing stored bytes.
pub(crate) mod rank {
    pub(crate) const MIN_KEY: u8 = 0x08;
    pub(crate) const NULL: u8 = 0x10;
    pub(crate) const NUMBER: u8 = 0x20;
    pub(crate) const STRING: u8 = 0x30;
    pub(crate) const OBJECT: u8 = 0x40;
    pub(crate) const ARRAY: u8 = 0x50;
    pub(crate) const BINARY: u8 = 0x58;
    pub(crate) const OBJECT_ID: u8 = 0x60;
    pub(crate) const BOOLEAN: u8 = 0x68;
    pub(crate) const DATE: u8 = 0x70;
    pub(crate) const TIMESTAMP: u8 = 0x78;
    pub(crate) const REGEX: u8 = 0x80;
    pub(crate) const DB_POINTER: u8 = 0x88;
    pub(crate) const CODE: u8 = 0x90;
    pub(crate) const CODE_WITH_SCOPE: u8 = 0x98;
    pub(crate) const MAX_KEY: u8 = 0xE0;
    /// What [`encode`](super::encode) and [`column_value`](super::column_value) put in front of an array that
    /// is not inside another value.
    pub(crate) const TOP_ARRAY: u8 = 0xF0;
}

/// The rank of a value's type; values of one rank are comparable with each other.
pub(crate) fn rank_of(value: &Bson) -> u8 {
    match value {
        Bson::MinKey => rank::MIN_KEY,
        Bson::Null | Bson::Undefined => rank::NULL,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => rank::NUMBER,
        Bson::String(_) | Bson::Symbol(_) => rank::STRING,
        Bson::Document(_) => rank::OBJECT,
        Bson::Array(_) => rank::ARRAY,
        Bson::Binary(_) => rank::BINARY,
        Bson::ObjectId(_) => rank::OBJECT_ID,
        Bson::Boolean(_) => rank::BOOLEAN,
        Bson::DateTime(_) => rank::DATE,
        Bson::Timestamp(_) => rank::TIMESTAMP,
        Bson::RegularExpression(_) => rank::REGEX,
        Bson::DbPointer(_) => rank::DB_POINTER,
        Bson::JavaScriptCode(_) => rank::CODE,
        Bson::JavaScriptCodeWithScope(_) => rank::CODE_WITH_SCOPE,
        Bson::MaxKey => rank::MAX_KEY,
    }
}

/// Compares as MongoDB sorts: null (and undefined) before numbers, strings, objects, arrays, binary, object
/// ids, booleans, dates, timestamps and regular expressions. Numbers of all kinds compare by their exact
/// values, NaN being the smallest; objects compare field by field: type, then name, then value.
///
/// Decimal128 values, which no JSON turns into, compare as the nearest double.
#[must_use]
pub fn compare(a: &Bson, b: &Bson) -> Ordering {
    rank_of(a).cmp(&rank_of(b)).then_with(|| compare_same_rank(a, b))
}

fn compare_same_rank(a: &Bson, b: &Bson) -> Ordering {
    match (a, b) {
        (Bson::String(a) | Bson::Symbol(a), Bson::String(b) | Bson::Symbol(b)) => a.cmp(b),
        (Bson::Document(a), Bson::Document(b)) => compare_documents(a, b),
        (Bson::Array(a), Bson::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|o| o.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Bson::ObjectId(a), Bson::ObjectId(b)) => a.bytes().cmp(&b.bytes()),
        (Bson::Boolean(a), Bson::Boolean(b)) => a.cmp(b),
        (Bson::DateTime(a), Bson::DateTime(b)) => a.cmp(b),
        _ => match (number_key(a), number_key(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // The rest is rare enough that its bytes need not be avoided.
            _ => encode(a).cmp(&encode(b)),
        },
    }
}

fn compare_documents(a: &Document, b: &Document) -> Ordering {
    let (mut left, mut right) = (a.iter(), b.iter());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((ka, va)), Some((kb, vb))) => {
                let order = rank_of(va)
                    .cmp(&rank_of(vb))
                    .then_with(|| ka.cmp(kb))
                    .then_with(|| compare_same_rank(va, vb));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// A number as (order-preserving bits of the largest double not above it, what is left above that double).
/// The rest is zero for every double, and below 1024 for every 64 bit integer, so both compare exactly.
fn number_key(value: &Bson) -> Option<(u64, u16)> {
    match value {
        Bson::Double(d) => Some((double_key(*d), 0)),
        Bson::Int32(i) => Some((double_key(f64::from(*i)), 0)),
        Bson::Int64(i) => Some(integer_key(*i)),
        // The text of a Decimal128 is always one that a double is parsed from.
        Bson::Decimal128(d) => Some((double_key(d.to_string().parse().unwrap_or(f64::NAN)), 0)),
        _ => None,
    }
}

fn integer_key(i: i64) -> (u64, u16) {
    let exact = i128::from(i);
    let mut below = i as f64;
    if below as i128 > exact {
        below = below.next_down();
    }
    (double_key(below), u16::try_from(exact - below as i128).unwrap_or(u16::MAX))
}

fn double_key(d: f64) -> u64 {
    if d.is_nan() {
        return 0;
    }
    let bits = (if d == 0.0 { 0.0 } else { d }).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Encodes a value as bytes whose order (`memcmp`) is that of [`compare`]; equal values give equal bytes. The
/// first byte is the rank of the type.
///
/// One deviation: an array that is not inside another value gets the highest rank of all, so that `bytes >=
/// F0` says "is an array". A path that holds arrays can therefore not be sorted by these bytes.
#[must_use]
pub fn encode(value: &Bson) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    if let Bson::Array(items) = value {
        out.push(rank::TOP_ARRAY);
        put_array(&mut out, items);
    } else {
        put(&mut out, value);
    }
    out
}

fn put(out: &mut Vec<u8>, value: &Bson) {
    out.push(rank_of(value));
    put_value(out, value);
}

/// Everything after the rank. Every form ends by itself: by its length or by a terminator that sorts before
/// every continuation.
fn put_value(out: &mut Vec<u8>, value: &Bson) {
    match value {
        Bson::MinKey | Bson::Null | Bson::Undefined | Bson::MaxKey => {}
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => {
            let (double, rest) = number_key(value).unwrap_or_default();
            out.extend(double.to_be_bytes());
            out.extend(rest.to_be_bytes());
        }
        Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => put_text(out, text),
        Bson::Document(document) => put_document(out, document),
        Bson::Array(items) => put_array(out, items),
        Bson::Binary(binary) => {
            // BSON's own lengths are below 2^31.
            out.extend(u32::try_from(binary.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.push(binary.subtype.into());
            out.extend(&binary.bytes);
        }
        Bson::ObjectId(id) => out.extend(id.bytes()),
        Bson::Boolean(b) => out.push(u8::from(*b)),
        Bson::DateTime(at) => out.extend((at.timestamp_millis().cast_unsigned() ^ 1 << 63).to_be_bytes()),
        Bson::Timestamp(at) => {
            out.extend(at.time.to_be_bytes());
            out.extend(at.increment.to_be_bytes());
        }
        Bson::RegularExpression(regex) => {
            put_text(out, regex.pattern.as_str());
            put_text(out, regex.options.as_str());
        }
        Bson::JavaScriptCodeWithScope(code) => {
            put_text(out, &code.code);
            put_document(out, &code.scope);
        }
        Bson::DbPointer(_) => put_text(out, &value.to_string()),
    }
}

fn put_document(out: &mut Vec<u8>, document: &Document) {
    for (key, value) in document {
        out.push(rank_of(value));
        put_text(out, key);
        put_value(out, value);
    }
    out.push(0);
}

fn put_array(out: &mut Vec<u8>, items: &[Bson]) {
    for item in items {
        put(out, item);
    }
    out.push(0);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_text_open(out, text);
    out.extend([0, 0]);
}

fn put_text_open(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
}

/// The beginning that the encodings of all strings which start with `prefix`, and only those, have.
#[cfg(feature = "embedded")]
pub(crate) fn encode_prefix(prefix: &str) -> Vec<u8> {
    let mut out = vec![rank::STRING];
    put_text_open(&mut out, prefix);
    out
}

/// Returns the value at a dotted path; a segment that is a number picks an element of an array, and no array
/// is looked through otherwise.
#[must_use]
pub fn value_at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    let (first, rest) = split(path);
    let mut value = document.get(first)?;
    let mut rest = rest;
    while let Some(path) = rest {
        let (segment, after) = split(path);
        value = match value {
            Bson::Document(document) => document.get(segment)?,
            Bson::Array(items) => items.get(index(segment)?)?,
            _ => return None,
        };
        rest = after;
    }
    Some(value)
}

/// Returns the bytes of a store's column for `path`: [`encode`] of the value there, absent being null.
///
/// If the path leads through an array or to one, they are its rank (`F0`) and a digest of the array: enough
/// to know that it is one and that two of them differ, and small however large it is.
///
/// # Errors
/// `TXN_ERROR` if the document is damaged on the way.
pub fn column_value(document: &RawDocument, path: &str) -> Result<Vec<u8>> {
    let (first, mut rest) = split(path);
    let mut value = raw_bson::get(document, first)?;
    loop {
        match (value, rest) {
            (Some(RawBsonRef::Document(document)), Some(path)) => {
                let (segment, after) = split(path);
                value = raw_bson::get(document, segment)?;
                rest = after;
            }
            (Some(value), rest) if rest.is_none() || matches!(value, RawBsonRef::Array(_)) => {
                return Ok(encode_top(&raw_bson::value(value)?));
            }
            _ => return Ok(vec![rank::NULL]),
        }
    }
}

/// What a column holds for the value at its path.
pub(crate) fn encode_top(value: &Bson) -> Vec<u8> {
    let mut out = encode(value);
    if matches!(value, Bson::Array(_)) {
        let digest = Sha256::digest(&out);
        out.truncate(1);
        out.extend(&digest[..16]);
    }
    out
}

/// Compares two documents in an order of several paths, absent values being null.
#[must_use]
pub fn compare_by(order: &[(String, Direction)], a: &Document, b: &Document) -> Ordering {
    let value = |document, path| value_at(document, path).unwrap_or(&Bson::Null);
    let each =
        order.iter().map(|(path, direction)| directed(compare(value(a, path), value(b, path)), *direction));
    each.fold(Ordering::Equal, Ordering::then)
}

/// Returns whether a document comes strictly after the one that has these values of the order's paths.
#[must_use]
pub fn is_after(order: &[(String, Direction)], after: &[Bson], document: &Document) -> bool {
    let value = |path| value_at(document, path).unwrap_or(&Bson::Null);
    let each = order
        .iter()
        .zip(after)
        .map(|((path, direction), after)| directed(compare(value(path), after), *direction));
    each.fold(Ordering::Equal, Ordering::then).is_gt()
}

fn directed(order: Ordering, direction: Direction) -> Ordering {
    match direction {
        Direction::Ascending => order,
        Direction::Descending => order.reverse(),
    }
}
