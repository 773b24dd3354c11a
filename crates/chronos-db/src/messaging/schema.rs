//! The collections, what makes a document of each unique, and their indexes.

use std::fmt;
use std::str::FromStr;

use bson::{Bson, Document};
use sha2::{Digest as _, Sha256};

use crate::documents::whole;
use crate::documents::{Direction, Filter, Index};
use crate::{Error, Result};

/// The namespace of topics, messages, deliveries and dead letters that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The collections of a messaging database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Values by namespace and key.
    SharedMemory,
    /// Topics.
    Topics,
    /// Messages.
    Messages,
    /// Delivery attempts.
    Deliveries,
    /// Messages that failed for good.
    DeadLetters,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::SharedMemory, Self::Topics, Self::Messages, Self::Deliveries, Self::DeadLetters];

    /// Returns the collection's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SharedMemory => "shared_memory",
            Self::Topics => "topics",
            Self::Messages => "messages",
            Self::Deliveries => "deliveries",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// The fields that make a document unique, beside the tenant. The first ones must be there; what may be
    /// absent is null.
    pub(super) const fn key_fields(self) -> &'static [&'static str] {
        match self {
            Self::SharedMemory => &["namespace", "key", "strategy", "version"],
            Self::Topics => &["namespace", "topic"],
            Self::Messages => &["namespace", "topic", "msgId"],
            Self::Deliveries => &["namespace", "topic", "msgId", "subscription", "attempt"],
            Self::DeadLetters => &["namespace", "topic", "msgId", "subscription"],
        }
    }

    /// Dates that stand beside `_system`.
    pub(super) const fn date_fields(self) -> &'static [&'static str] {
        match self {
            Self::SharedMemory | Self::Topics => &["createdAt", "updatedAt"],
            Self::Messages => &["firstSeenAt"],
            Self::Deliveries => &["ts"],
            Self::DeadLetters => &["failedAt"],
        }
    }

    /// The index that `key_fields` are looked up by.
    pub(super) fn key_index(self) -> Index {
        let keys = std::iter::once(&"tenantId").chain(self.key_fields());
        let direction = |path: &str| {
            if matches!(path, "strategy" | "version") { Direction::Descending } else { Direction::Ascending }
        };
        Index {
            name: format!("{}_key", self.name()),
            keys: keys.map(|path| ((*path).to_owned(), direction(path))).collect(),
            unique: true,
            only_if_exists: None,
        }
    }

    /// All other indexes.
    pub(super) fn indexes(self) -> Vec<Index> {
        let expiry = Index::on(&format!("{}_expiry", self.name()), &["tenantId", "_system.expiresAt"])
            .only_if_exists("_system.expiresAt");
        let list = |date: &str| {
            Index::on(&format!("{}_list", self.name()), &["tenantId", "namespace", "topic", date, "_id"])
        };
        match self {
            Self::SharedMemory => {
                let request =
                    Index::on("shared_memory_request", &["tenantId", "namespace", "key", "requestId"]);
                vec![request.unique().only_if_exists("requestId"), expiry]
            }
            Self::Topics => Vec::new(),
            Self::Messages => vec![list("firstSeenAt"), expiry],
            Self::Deliveries => vec![expiry],
            Self::DeadLetters => vec![list("failedAt"), expiry],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            let shown: String = name.chars().take(40).collect();
            Error::validation(format!(
                "`{}` is not a messaging collection; there are {}",
                shown.escape_debug(),
                names.join(", ")
            ))
        })
    }
}

/// What makes a document unique for its tenant: the values of [`Kind::key_fields`].
#[derive(Clone, PartialEq)]
pub(super) struct Key {
    kind: Kind,
    values: Vec<Bson>,
}

crate::debug_some!(Key { kind });

impl Key {
    pub(super) fn new(kind: Kind, values: impl IntoIterator<Item = Bson>) -> Self {
        let values: Vec<Bson> = values.into_iter().collect();
        debug_assert_eq!(values.len(), kind.key_fields().len());
        Self { kind, values }
    }

    /// The key of a stored document. What the legacy library left out has its default.
    pub(super) fn of(kind: Kind, document: &Document) -> Self {
        let value = |field: &&str| match (*field, document.get(field)) {
            ("namespace", None | Some(Bson::Null)) => DEFAULT_NAMESPACE.into(),
            ("strategy", None | Some(Bson::Null)) => "latest".into(),
            (_, None) => Bson::Null,
            // The servers and drivers of others type whole numbers as they like.
            (_, Some(value)) => whole(value).map_or_else(|| value.clone(), Bson::Int64),
        };
        Self { kind, values: kind.key_fields().iter().map(value).collect() }
    }

    /// Writes the key's fields; null ones are left out.
    pub(super) fn write(&self, document: &mut Document) {
        for (field, value) in self.kind.key_fields().iter().zip(&self.values) {
            match value {
                Bson::Null => document.remove(field),
                value => document.insert(*field, value.clone()),
            };
        }
    }

    /// Finds the document, also one of the legacy library.
    pub(super) fn filter(&self) -> Filter {
        let part = |(field, value): (&&str, &Bson)| is(self.kind, field, value);
        self.kind.key_fields().iter().zip(&self.values).map(part).fold(Filter::All, Filter::and)
    }

    /// The `_id` that every writer of this key gives the document.
    pub(super) fn id(&self, tenant: &str) -> String {
        let mut hasher = Sha256::new();
        let mut part = |text: &str| {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        };
        part(self.kind.name());
        part(tenant);
        for value in &self.values {
            match value {
                Bson::String(text) => part(text),
                Bson::Null => part(""),
                other => part(&other.to_string()),
            }
        }
        // 160 bits: no two keys meet.
        hasher.finalize().iter().take(20).fold(String::with_capacity(40), |mut hex, byte| {
            hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            hex
        })
    }
}

/// The condition that `field` has `value`, where what the legacy library left out has its default.
pub(super) fn is(kind: Kind, field: &str, value: &Bson) -> Filter {
    let absent = match field {
        "namespace" if kind != Kind::SharedMemory => value.as_str() == Some(DEFAULT_NAMESPACE),
        "strategy" if kind == Kind::SharedMemory => value.as_str() == Some("latest"),
        _ => false,
    };
    if absent {
        Filter::any_of(field, vec![value.clone(), Bson::Null])
    } else {
        Filter::eq(field, value.clone())
    }
}

/// Checks a namespace, key, topic, message id or subscription.
pub(super) fn check_text<'a>(what: &str, text: &'a str) -> Result<&'a str> {
    /// What an index entry of MongoDB holds comfortably, several of them together.
    const MAX_TEXT_BYTES: usize = 1024;
    let shown = || text.chars().take(40).collect::<String>().escape_debug().to_string();
    match text {
        "" => Err(Error::validation(format!("the {what} is empty"))),
        _ if text.len() > MAX_TEXT_BYTES => Err(Error::validation(format!(
            "the {what} `{}…` has {} bytes; {MAX_TEXT_BYTES} are allowed",
            shown(),
            text.len()
        ))),
        _ if text.contains('\0') => {
            Err(Error::validation(format!("the {what} `{}` holds a NUL character", shown())))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_never_run_into_each_other() {
        let id =
            |namespace: &str, topic: &str| Key::new(Kind::Topics, [namespace.into(), topic.into()]).id("t");
        assert_ne!(id("ab", "c"), id("a", "bc"));
        assert_eq!(id("a", "b"), id("a", "b"));
        assert_eq!(id("a", "b").len(), 40);
    }

    #[test]
    fn a_document_of_the_legacy_library_has_the_key_of_ours() {
        let old = bson::doc! { "tenantId": "t", "topic": "payments", "shards": 4 };
        assert_eq!(
            Key::of(Kind::Topics, &old),
            Key::new(Kind::Topics, ["default".into(), "payments".into()])
        );
        let version = bson::doc! { "namespace": "n", "key": "k", "strategy": "append", "version": 3.0 };
        let ours = Key::new(Kind::SharedMemory, ["n".into(), "k".into(), "append".into(), Bson::Int64(3)]);
        assert_eq!(Key::of(Kind::SharedMemory, &version), ours);
    }
}
