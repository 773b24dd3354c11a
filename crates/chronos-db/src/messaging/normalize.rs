//! Documents of others (the handle's users, the legacy library) in the shape of ours.

use bson::{Bson, Document};

use super::deliveries::DeliveryStatus;
use super::schema::{Key, Kind, check_text, is};
use super::value::{after_days, date, put, put_headers, take, whole};
use super::{DEFAULT_NAMESPACE, MAX_VALUE_BYTES};
use crate::documents::Filter;
use crate::documents::filter::{self, Test};
use crate::json::Map;
use crate::{Error, Json, Result, Timestamp, bson_to_json, json_to_bson};

/// Fields that are kept exactly as they were given.
const VALUES: [&str; 3] = ["val", "payload", "headers"];

/// Whether a path leads to a date.
fn is_date(kind: Kind, path: &str) -> bool {
    match path.strip_prefix("_system.") {
        Some(rest) => matches!(rest, "createdAt" | "updatedAt" | "deletedAt" | "expiresAt"),
        None => kind.date_fields().contains(&path),
    }
}

/// Reads a document a user wrote.
pub(super) fn from_json(given: &Json) -> Result<Document> {
    let Json::Object(fields) = given else {
        return Err(Error::validation("a document is a JSON object"));
    };
    let mut document = Document::new();
    for (field, value) in fields {
        if field.is_empty() || field.starts_with('$') || field.contains(['.', '\0']) {
            return Err(Error::validation(format!("`{}` is not a name of a field", field.escape_debug())));
        }
        match field.as_str() {
            // What the store gives and keeps.
            "_id" | "rev" | "valFormat" | "payloadFormat" | "headersFormat" => {}
            "headers" if !value.is_null() => put_headers(&mut document, Some(value))?,
            "headers" => {}
            "val" | "payload" => put(&mut document, field, value).map(drop)?,
            _ => {
                document.insert(field, json_to_bson(value)?);
            }
        }
    }
    if given.to_string().len() > 2 * MAX_VALUE_BYTES {
        return Err(Error::validation(format!(
            "a document has at most {} bytes of JSON",
            2 * MAX_VALUE_BYTES
        )));
    }
    Ok(document)
}

/// A stored document as a user reads it.
pub(super) fn to_json(document: &Document) -> Result<Json> {
    let mut fields = Map::new();
    for (field, value) in document {
        if VALUES.contains(&field.as_str()) {
            fields.insert(field.clone(), take(document, field)?);
        } else if !field.strip_suffix("Format").is_some_and(|name| VALUES.contains(&name)) {
            fields.insert(field.clone(), bson_to_json(value));
        }
    }
    Ok(fields.into())
}

/// The user's filter, with dates typed as they are stored, and what the legacy library left out found by its
/// default.
pub(super) fn read_filter(kind: Kind, given: &Json) -> Result<Filter> {
    typed(kind, filter::parse(given, &mut |path| Ok(path.to_owned()))?)
}

fn typed(kind: Kind, filter: Filter) -> Result<Filter> {
    filter.try_map(&mut |path, test| {
        Ok(match test {
            Test::Eq(value) if path == "namespace" || path == "strategy" => is(kind, &path, &value),
            test if is_date(kind, &path) => {
                let test = test.try_map_texts(&|text| Ok(Timestamp::parse(text)?.into()))?;
                Filter::Field(path, test)
            }
            test => Filter::Field(path, test),
        })
    })
}

/// Adds what a document of ours has and this one lacks, and checks what makes it unique. `now` stands for
/// times nobody said.
pub(super) fn complete(kind: Kind, document: &mut Document, now: Timestamp) -> Result<Key> {
    complete_key(kind, document)?;
    for field in kind.date_fields() {
        complete_date(document, field)?;
    }
    let mut system = match document.get("_system") {
        None | Some(Bson::Null) => Document::new(),
        Some(Bson::Document(system)) => system.clone(),
        Some(_) => return Err(Error::validation("`_system` is an object")),
    };
    for field in ["createdAt", "updatedAt", "deletedAt", "expiresAt"] {
        complete_date(&mut system, field)?;
    }
    // The first of them is when the document, or what it tells of, came to be.
    let own = kind.date_fields().first().and_then(|field| date(document, field));
    let created = date(&system, "createdAt").or(own).unwrap_or(now);
    let updated = date(&system, "updatedAt")
        .or_else(|| date(document, "updatedAt"))
        .or(own)
        .unwrap_or(now)
        .max(created);
    system.insert("createdAt", created);
    system.insert("updatedAt", updated);
    if let Some(days) = whole(&system, "retentionDays")
        && !system.contains_key("expiresAt")
    {
        let days = u32::try_from(days)
            .map_err(|_| Error::validation("`_system.retentionDays` is a number of days"))?;
        system.insert("expiresAt", after_days(updated, days));
    }
    document.insert("_system", system);
    let stamps: &[(&str, Timestamp)] = match kind {
        Kind::SharedMemory => &[("createdAt", created), ("updatedAt", updated)],
        Kind::Topics => &[("createdAt", created)],
        Kind::Messages => &[("firstSeenAt", created)],
        Kind::Deliveries => &[("ts", updated)],
        Kind::DeadLetters => &[("failedAt", created)],
    };
    for (field, at) in stamps {
        if date(document, field).is_none() {
            document.insert(*field, *at);
        }
    }
    Ok(Key::of(kind, document))
}

fn complete_key(kind: Kind, document: &mut Document) -> Result<()> {
    if kind != Kind::SharedMemory && matches!(document.get("namespace"), None | Some(Bson::Null)) {
        document.insert("namespace", DEFAULT_NAMESPACE);
    }
    for field in kind.key_fields() {
        let value = document.get(field).unwrap_or(&Bson::Null);
        match (*field, value) {
            ("strategy" | "version", _) => {}
            ("subscription", Bson::Null) if kind == Kind::DeadLetters => {
                document.remove("subscription");
            }
            ("attempt", _) => {
                let attempt = whole(document, "attempt")
                    .ok_or_else(|| Error::validation("a delivery needs `attempt`, a whole number"))?;
                document.insert("attempt", attempt);
            }
            (field, Bson::String(text)) => check_text(field, text).map(drop)?,
            (field, _) => {
                return Err(Error::validation(format!("a document of {kind} needs `{field}`, a text")));
            }
        }
    }
    match kind {
        Kind::SharedMemory => complete_version(document),
        Kind::Deliveries => {
            document.get_str("status").unwrap_or_default().parse::<DeliveryStatus>().map(drop)
        }
        Kind::Topics => {
            let shards = whole(document, "shards").unwrap_or(1);
            document.insert("shards", shards);
            Ok(())
        }
        Kind::Messages | Kind::DeadLetters => Ok(()),
    }
}

fn complete_version(document: &mut Document) -> Result<()> {
    let version = whole(document, "version");
    match (document.get("strategy"), document.get("version")) {
        (None | Some(Bson::Null), None | Some(Bson::Null)) => {
            document.insert("strategy", "latest");
        }
        (Some(Bson::String(strategy)), None | Some(Bson::Null)) if strategy == "latest" => {}
        (Some(Bson::String(strategy)), Some(_))
            if strategy == "append" && version.is_some_and(|version| version >= 0) => {}
        _ => {
            let message =
                "`strategy` is `latest`, without a `version`, or `append`, with a `version` from 0 on";
            return Err(Error::validation(message));
        }
    }
    match version {
        Some(version) => document.insert("version", version),
        None => document.remove("version"),
    };
    Ok(())
}

/// A date that was written as text becomes one.
fn complete_date(document: &mut Document, field: &str) -> Result<()> {
    match document.get(field) {
        None | Some(Bson::DateTime(_)) => {}
        Some(Bson::Null) => {
            document.remove(field);
        }
        Some(Bson::String(text)) => {
            let at = Timestamp::parse(text)?;
            document.insert(field, at);
        }
        Some(_) => return Err(Error::validation(format!("`{field}` is a date"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completing_twice_changes_nothing() {
        let now = Timestamp::from_millis(1_000_000);
        let old = [
            (
                Kind::SharedMemory,
                bson::doc! { "namespace": "n", "key": "k", "val": 1, "strategy": "append", "version": 0 },
            ),
            (
                Kind::SharedMemory,
                bson::doc! { "namespace": "n", "key": "k", "val": 1, "_system": { "retentionDays": 3 } },
            ),
            (Kind::Topics, bson::doc! { "topic": "t", "shards": 4 }),
            (
                Kind::Messages,
                bson::doc! { "topic": "t", "msgId": "1", "payload": 1, "firstSeenAt": Timestamp::from_millis(5) },
            ),
            (
                Kind::Deliveries,
                bson::doc! { "topic": "t", "msgId": "1", "subscription": "s", "attempt": 1.0, "status": "ack" },
            ),
            (Kind::DeadLetters, bson::doc! { "topic": "t", "msgId": "1", "payload": 1 }),
        ];
        for (kind, mut document) in old {
            complete(kind, &mut document, now).unwrap();
            let once = document.clone();
            complete(kind, &mut document, now.plus_millis(1)).unwrap();
            assert_eq!(document, once);
        }
    }

    #[test]
    fn a_document_that_nothing_could_find_again_is_refused() {
        let now = Timestamp::from_millis(0);
        let wrong = [
            (Kind::SharedMemory, bson::doc! { "key": "k", "val": 1 }),
            (Kind::SharedMemory, bson::doc! { "namespace": "n", "key": "k", "version": 1 }),
            (Kind::SharedMemory, bson::doc! { "namespace": "n", "key": "k", "strategy": "append" }),
            (Kind::Topics, bson::doc! { "topic": 1 }),
            (Kind::Messages, bson::doc! { "topic": "t" }),
            (
                Kind::Deliveries,
                bson::doc! { "topic": "t", "msgId": "1", "subscription": "s", "attempt": 1, "status": "lost" },
            ),
        ];
        for (kind, mut document) in wrong {
            assert!(complete(kind, &mut document, now).is_err(), "{document}");
        }
    }
}
