//! Indexes, and collections with them.

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;

use super::client::Lease;
use super::failure::{self, Failure, has_code};
use crate::Error;
use crate::documents::{Direction, Index, Namespace};

const NAMESPACE_EXISTS: i32 = 48;
const INDEX_OPTIONS_CONFLICT: i32 = 85;
const INDEX_KEY_SPECS_CONFLICT: i32 = 86;

pub(super) async fn ensure(lease: &Lease, namespace: &Namespace, indexes: &[Index]) -> Result<(), Failure> {
    let database = lease.client.database(&namespace.database);
    if indexes.is_empty() {
        return match database.run_command(doc! { "create": &*namespace.collection, "writeConcern": concern() }).await {
            Err(e) if !has_code(&e, NAMESPACE_EXISTS) => Err(e.into()),
            _ => Ok(()),
        };
    }
    match create(lease, namespace, indexes).await {
        Err(e) if has_code(&e, INDEX_OPTIONS_CONFLICT) || has_code(&e, INDEX_KEY_SPECS_CONFLICT) => {
            let missing = missing(lease, namespace, indexes, &e).await?;
            if missing.is_empty() { Ok(()) } else { create(lease, namespace, &missing).await.map_err(|e| told(namespace, e)) }
        }
        created => created.map_err(|e| told(namespace, e)),
    }
}

async fn create(lease: &Lease, namespace: &Namespace, indexes: &[Index]) -> Result<(), mongodb::error::Error> {
    let specs: Vec<Document> = indexes.iter().map(spec).collect();
    let command = doc! { "createIndexes": &*namespace.collection, "indexes": specs, "writeConcern": concern() };
    lease.client.database(&namespace.database).run_command(command).await.map(drop)
}

const NAMESPACE_NOT_FOUND: i32 = 26;

/// The plain indexes of a collection: those with directions alone, over all documents.
pub(super) async fn list(lease: &Lease, namespace: &Namespace) -> Result<Vec<Index>, Failure> {
    let database = lease.client.database(&namespace.database);
    let listed: Vec<Document> = match database.run_cursor_command(doc! { "listIndexes": &*namespace.collection }).await {
        Ok(cursor) => cursor.try_collect().await?,
        Err(error) if has_code(&error, NAMESPACE_NOT_FOUND) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(listed.iter().filter_map(plain_index).collect())
}

fn plain_index(listed: &Document) -> Option<Index> {
    let special = ["partialFilterExpression", "sparse", "collation", "hidden"].iter().any(|option| listed.contains_key(option));
    let key = |(path, direction): (&String, &Bson)| {
        let sign = match direction {
            Bson::Int32(d) => f64::from(*d),
            Bson::Int64(d) => *d as f64,
            Bson::Double(d) => *d,
            _ => return None,
        };
        Some((path.clone(), if sign < 0.0 { Direction::Descending } else { Direction::Ascending }))
    };
    let name = listed.get_str("name").ok().filter(|_| !special)?.to_owned();
    let keys = listed.get_document("key").ok()?.iter().map(key).collect::<Option<Vec<_>>>()?;
    Some(Index { unique: name == "_id_" || listed.get_bool("unique").unwrap_or(false), name, keys, only_if_exists: None })
}

/// The indexes that aren't there by name and keys. `refused` is why the server did not create all of them.
async fn missing(lease: &Lease, namespace: &Namespace, indexes: &[Index], refused: &mongodb::error::Error) -> Result<Vec<Index>, Failure> {
    let listed: Vec<Document> = {
        let database = lease.client.database(&namespace.database);
        database.run_cursor_command(doc! { "listIndexes": &*namespace.collection }).await?.try_collect().await?
    };
    let mut missing = Vec::new();
    for index in indexes {
        let (name, wanted) = (index.name.as_str(), keys(index));
        let same_name = listed.iter().find(|have| have.get_str("name").is_ok_and(|have| have == name));
        match same_name {
            None => missing.push(index.clone()),
            Some(have) if have.get_document("key").is_ok_and(|key| equal_keys(key, &wanted)) => {}
            Some(_) => {
                let what = format!("{namespace:?} has an index `{name}` over other keys: {}", failure::describe(refused));
                return Err(Error::database(what).into());
            }
        }
    }
    Ok(missing)
}

fn spec(index: &Index) -> Document {
    let mut spec = doc! { "name": &index.name, "key": keys(index) };
    if index.unique {
        spec.insert("unique", true);
    }
    if let Some(path) = &index.only_if_exists {
        spec.insert("partialFilterExpression", doc! { path: { "$exists": true } });
    }
    spec
}

fn keys(index: &Index) -> Document {
    let sign = |direction: &Direction| match direction {
        Direction::Ascending => 1,
        Direction::Descending => -1,
    };
    index.keys.iter().map(|(path, direction)| (path.clone(), Bson::Int32(sign(direction)))).collect()
}

/// Whether the server's keys are the wanted ones, in the same order; servers and tools type the directions differently.
fn equal_keys(have: &Document, wanted: &Document) -> bool {
    let plain = |key: &Document| -> Vec<(String, Option<i64>)> {
        key.iter()
            .map(|(path, direction)| {
                let direction = match direction {
                    Bson::Int32(d) => Some(i64::from(*d)),
                    Bson::Int64(d) => Some(*d),
                    Bson::Double(d) => Some(*d as i64),
                    _ => None,
                };
                (path.clone(), direction)
            })
            .collect()
    };
    plain(have) == plain(wanted)
}

fn concern() -> Document {
    doc! { "w": "majority" }
}

fn told(namespace: &Namespace, error: mongodb::error::Error) -> Failure {
    if !has_code(&error, failure::DUPLICATE_KEY) {
        return error.into();
    }
    let words = failure::describe(&error);
    let index = failure::violated_index(&words, &format!("{namespace:?}")).unwrap_or_else(|| "unknown".to_owned());
    Error::database(format!("documents of {namespace:?} violate the unique index `{index}`: {words}")).into()
}
