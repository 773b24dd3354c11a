//! Indexes, and collections with them.

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use mongodb::Database;

use super::call::Call;
use super::client::Lease;
use super::failure::{self, Failure, has_code};
use crate::clock::millis;
use crate::documents::{Direction, Index, Namespace};
use crate::{Error, ErrorKind};

const NAMESPACE_NOT_FOUND: i32 = 26;
const NAMESPACE_EXISTS: i32 = 48;
const INDEX_OPTIONS_CONFLICT: i32 = 85;
const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
const UNKNOWN_FIELD: i32 = 40_415;

/// An index that the server has.
struct Existing {
    spec: Document,
    /// Still being built: it decides nothing yet.
    is_building: bool,
}

/// Looks first, so that nothing is waited for where everything exists: not even a majority that is away.
pub(super) async fn ensure(call: &Call, namespace: &Namespace, indexes: &[Index]) -> Result<(), Failure> {
    if indexes.is_empty() {
        return ensure_collection(call, namespace).await;
    }
    let existing = existing(call, namespace).await?;
    let mut missing = Vec::new();
    for index in indexes {
        if !is_there(call, namespace, index, &existing)? {
            missing.push(index);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    create(call, namespace, &missing).await
}

async fn ensure_collection(call: &Call, namespace: &Namespace) -> Result<(), Failure> {
    let database = call.lease.client.database(&namespace.database);
    let named = doc! { "listCollections": 1, "nameOnly": true, "filter": { "name": &*namespace.collection } };
    let listed: Vec<Document> = database.run_cursor_command(named).await?.try_collect().await?;
    if !listed.is_empty() {
        return Ok(());
    }
    match database.run_command(doc! { "create": &*namespace.collection, "writeConcern": concern(call) }).await
    {
        Err(e) if !has_code(&e, NAMESPACE_EXISTS) => Err(e.into()),
        Err(_) => Ok(()),
        Ok(reply) => met(&reply),
    }
}

async fn existing(call: &Call, namespace: &Namespace) -> Result<Vec<Existing>, Failure> {
    let database = call.lease.client.database(&namespace.database);
    // Only asked for so does the server tell those apart that are still being built.
    let listed =
        match listed(&database, doc! { "listIndexes": &*namespace.collection, "includeBuildUUIDs": true })
            .await
        {
            Err(e) if has_code(&e, UNKNOWN_FIELD) => {
                listed(&database, doc! { "listIndexes": &*namespace.collection }).await?
            }
            listed => listed?,
        };
    let read = |listed: Document| {
        let spec = listed.get_document("spec").ok().cloned();
        Existing { is_building: listed.contains_key("buildUUID"), spec: spec.unwrap_or(listed) }
    };
    Ok(listed.into_iter().map(read).collect())
}

async fn listed(database: &Database, command: Document) -> mongodb::error::Result<Vec<Document>> {
    match database.run_cursor_command(command).await {
        Ok(cursor) => cursor.try_collect().await,
        Err(e) if has_code(&e, NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The plain indexes of a collection: those with directions alone, over all documents.
pub(super) async fn list(lease: &Lease, namespace: &Namespace) -> Result<Vec<Index>, Failure> {
    let database = lease.client.database(&namespace.database);
    let listed: Vec<Document> =
        match database.run_cursor_command(doc! { "listIndexes": &*namespace.collection }).await {
            Ok(cursor) => cursor.try_collect().await?,
            Err(error) if has_code(&error, NAMESPACE_NOT_FOUND) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
    Ok(listed.iter().filter_map(plain_index).collect())
}

/// The direction that a server's index says; none for text, hashed and other special ones.
fn direction(value: &Bson) -> Option<Direction> {
    let sign = match value {
        Bson::Int32(d) => f64::from(*d),
        Bson::Int64(d) => *d as f64,
        Bson::Double(d) => *d,
        _ => return None,
    };
    Some(if sign < 0.0 { Direction::Descending } else { Direction::Ascending })
}

fn plain_index(listed: &Document) -> Option<Index> {
    let special = ["partialFilterExpression", "sparse", "collation", "hidden"]
        .iter()
        .any(|option| listed.contains_key(option));
    let key = |(path, value): (&String, &Bson)| Some((path.clone(), direction(value)?));
    let name = listed.get_str("name").ok().filter(|_| !special)?.to_owned();
    let keys = listed.get_document("key").ok()?.iter().map(key).collect::<Option<Vec<_>>>()?;
    Some(Index {
        unique: name == "_id_" || listed.get_bool("unique").unwrap_or(false),
        name,
        keys,
        only_if_exists: None,
    })
}

/// Whether an existing index serves as the wanted one. One that has its name and is another one is an error.
fn is_there(
    call: &Call,
    namespace: &Namespace,
    wanted: &Index,
    existing: &[Existing],
) -> Result<bool, Failure> {
    let name = |existing: &Existing| existing.spec.get_str("name").unwrap_or_default().to_owned();
    if let Some(namesake) = existing.iter().find(|existing| name(existing) == wanted.name) {
        return match difference(&namesake.spec, wanted) {
            None => Ok(!namesake.is_building),
            Some(difference) => Err(in_the_way(namespace, wanted, &wanted.name, &difference)),
        };
    }
    // An index that was made for the same purpose, such as the legacy library.
    let serving = existing
        .iter()
        .find(|existing| !existing.is_building && difference(&existing.spec, wanted).is_none());
    if let Some(serving) = serving {
        call.connector.serves(namespace, &name(serving), &wanted.name);
    }
    Ok(serving.is_some())
}

async fn create(call: &Call, namespace: &Namespace, missing: &[&Index]) -> Result<(), Failure> {
    let specs: Vec<Document> = missing.iter().map(|index| spec(index)).collect();
    let mut command =
        doc! { "createIndexes": &*namespace.collection, "indexes": specs, "writeConcern": concern(call) };
    // Otherwise every member must have built them, also one that is away.
    if call.connector.capabilities(&call.lease).await?.transactions {
        command.insert("commitQuorum", "majority");
    }
    match call.lease.client.database(&namespace.database).run_command(command).await {
        Ok(reply) => met(&reply),
        Err(e) if has_code(&e, INDEX_OPTIONS_CONFLICT) || has_code(&e, INDEX_KEY_SPECS_CONFLICT) => {
            let existing = existing(call, namespace).await?;
            for wanted in missing {
                if let Some(other) = existing.iter().find(|other| has_keys(&other.spec, wanted)) {
                    let name = other.spec.get_str("name").unwrap_or_default();
                    let difference = difference(&other.spec, wanted).unwrap_or_else(|| failure::describe(&e));
                    return Err(in_the_way(namespace, wanted, name, &difference));
                }
            }
            Err(e.into())
        }
        Err(e) => Err(violated(namespace, e)),
    }
}

/// What makes an existing index another one than the wanted one.
fn difference(have: &Document, wanted: &Index) -> Option<String> {
    let flag = |name: &str| {
        matches!(have.get(name), Some(Bson::Boolean(true)) | Some(Bson::Int32(1)) | Some(Bson::Int64(1)))
    };
    if !has_keys(have, wanted) {
        return Some(format!("it is over {}", have.get_document("key").cloned().unwrap_or_default()));
    }
    if flag("unique") != wanted.unique {
        return Some(if wanted.unique { "it is not unique".to_owned() } else { "it is unique".to_owned() });
    }
    let partial = wanted.only_if_exists.as_ref().map(|path| doc! { path: { "$exists": true } });
    if have.get_document("partialFilterExpression").ok() != partial.as_ref() {
        return Some(match have.get_document("partialFilterExpression") {
            Ok(filter) => format!("it holds only the documents that match {filter}"),
            Err(_) => "it holds all documents".to_owned(),
        });
    }
    if flag("sparse") {
        return Some("it is sparse".to_owned());
    }
    if have.contains_key("expireAfterSeconds") {
        return Some("it removes documents after a time".to_owned());
    }
    // Under a collation, different values may be equal.
    (wanted.unique && have.contains_key("collation")).then(|| "it compares by a collation".to_owned())
}

fn in_the_way(namespace: &Namespace, wanted: &Index, name: &str, difference: &str) -> Failure {
    let (database, collection) = (&namespace.database, &namespace.collection);
    let what = format!(
        "the index `{name}` of {namespace:?} is in the way of the one we need, `{}` over {}{}: {difference}. Nothing is written without it. Remove it with \
         db.getSiblingDB({database:?}).getCollection({collection:?}).dropIndex({name:?}); then it is made as it must be",
        wanted.name,
        keys(wanted),
        if wanted.unique { ", unique" } else { "" },
    );
    Error::new(ErrorKind::RouteMismatch, what).into()
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

/// Whether the server's keys are the wanted ones, in the same order; servers and tools type the directions
/// differently.
fn has_keys(have: &Document, wanted: &Index) -> bool {
    let plain = |key: &Document| -> Vec<(String, Option<Direction>)> {
        key.iter().map(|(path, value)| (path.clone(), direction(value))).collect()
    };
    have.get_document("key").is_ok_and(|have| plain(have) == plain(&keys(wanted)))
}

fn concern(call: &Call) -> Document {
    doc! { "w": "majority", "wtimeout": millis(call.majority_wait()) }
}

/// Whether the majority has it.
fn met(reply: &Document) -> Result<(), Failure> {
    match reply.get_document("writeConcernError") {
        Ok(unmet) => {
            let code = i32::try_from(failure::count(unmet, "code")).unwrap_or_default();
            Err(Failure::reply(
                code,
                unmet.get_str("errmsg").unwrap_or("the majority did not have it in time"),
            ))
        }
        Err(_) => Ok(()),
    }
}

fn violated(namespace: &Namespace, error: mongodb::error::Error) -> Failure {
    if !has_code(&error, failure::DUPLICATE_KEY) {
        return error.into();
    }
    let words = failure::describe(&error);
    let index =
        failure::violated_index(&words, &format!("{namespace:?}")).unwrap_or_else(|| "unknown".to_owned());
    Error::database(format!("documents of {namespace:?} violate the unique index `{index}`: {words}")).into()
}
