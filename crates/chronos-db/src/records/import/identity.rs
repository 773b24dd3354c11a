//! How a change of a log is recognised when the log is imported again.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::ImportOp;
use super::op::Kind;
use crate::documents::filter::key_encoding::encode;
use crate::json::Number;
use crate::records::model::{ItemId, MarkId};
use crate::{Json, Result, Timestamp, json_to_bson};

/// Keys that an import remembers the latest change of, twice over. What is forgotten is asked of the store.
const REMEMBERED: usize = 50_000;

/// What became of the change before, of the same key, in this run of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It is carried out in this run.
    Now,
    /// It had been carried out before, and left the item at this version.
    Then(ItemId, i64),
}

/// The latest changes of a key in this run.
#[derive(Default)]
pub(crate) struct Recent {
    /// The moment that `seen` is about.
    at: Option<Timestamp>,
    /// How often each change of the moment came.
    seen: HashMap<MarkId, u32>,
    pub(crate) before: Option<Before>,
}

/// What a run of a log remembers of its keys, in bounded memory.
#[derive(Default)]
pub(crate) struct Memory {
    young: HashMap<Vec<u8>, Recent>,
    old: HashMap<Vec<u8>, Recent>,
}

impl Memory {
    pub(crate) fn of(&mut self, key: &[u8]) -> &mut Recent {
        if !self.young.contains_key(key) {
            if self.young.len() >= REMEMBERED {
                self.old = std::mem::take(&mut self.young);
            }
            let known = self.old.remove(key).unwrap_or_default();
            self.young.insert(key.to_vec(), known);
        }
        self.young.entry(key.to_vec()).or_default()
    }
}

impl Recent {
    /// By what a change with a time is recognised: its key, time, kind and content, and the how manieth of
    /// them it is.
    pub(crate) fn identity(&mut self, operation: &ImportOp, at: Timestamp) -> Result<MarkId> {
        let same = digest(operation, at)?;
        if self.at != Some(at) {
            self.at = Some(at);
            self.seen.clear();
        }
        let times = self.seen.entry(same).or_default();
        *times += 1;
        if *times == 1 {
            return Ok(same);
        }
        let mut hash = Sha256::new();
        hash.update(same);
        hash.update(times.to_be_bytes());
        Ok(short(hash))
    }
}

/// By what a change without a time is recognised: the log it stands in, and the line.
pub(crate) fn line(log: &str, line: u64) -> MarkId {
    let mut hash = Sha256::new();
    hash.update((log.len() as u64).to_be_bytes());
    hash.update(log);
    hash.update(line.to_be_bytes());
    short(hash)
}

fn digest(operation: &ImportOp, at: Timestamp) -> Result<MarkId> {
    let key = encode(&json_to_bson(&operation.key)?);
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(at.as_millis().to_be_bytes());
    hash.update([match operation.kind {
        Kind::Create => b'c',
        Kind::Replace => b'r',
        Kind::Update => b'u',
        Kind::Delete => b'd',
    }]);
    add(&mut hash, &operation.data);
    Ok(short(hash))
}

/// The content of a value, whatever the order of its keys; each part with its length, so that no two contents
/// have one sum.
fn add(hash: &mut Sha256, value: &Json) {
    let mut text = |kind: u8, text: &str| {
        hash.update([kind]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    match value {
        Json::Null => text(b'n', ""),
        Json::Bool(b) => text(b'b', if *b { "t" } else { "f" }),
        Json::Number(number) => text(b'#', &digits(number)),
        Json::String(s) => text(b's', s),
        Json::Array(items) => {
            text(b'[', &items.len().to_string());
            for item in items {
                add(hash, item);
            }
        }
        Json::Object(map) => {
            text(b'{', &map.len().to_string());
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (name, value) in fields {
                hash.update((name.len() as u64).to_be_bytes());
                hash.update(name);
                add(hash, value);
            }
        }
    }
}

/// One spelling for equal numbers.
fn digits(number: &Number) -> String {
    let near = number.nearest_f64();
    match number.as_i64() {
        Some(whole) => whole.to_string(),
        None if number.is_whole() || !near.is_finite() => number.text().into_owned(),
        None => near.to_string(),
    }
}

fn short(hash: Sha256) -> MarkId {
    let whole = hash.finalize();
    let mut id = MarkId::default();
    let length = id.len();
    id.copy_from_slice(&whole[..length]);
    id
}
