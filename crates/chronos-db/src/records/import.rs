//! Importing a log of changes: items are known by a property, times are kept, and importing the same log again changes nothing.

use std::collections::HashMap;

use bson::Bson;
use futures::{StreamExt as _, TryStreamExt as _};

use super::collection::Collection;
use super::indexing::plain;
use super::model::{ItemId, Lineage};
use super::payload;
use super::scope::Scope;
use super::view::Written;
use super::write::{Change, WriteOptions};
use crate::documents::filter::order::{encode, value_at};
use crate::documents::{Filter, Scan, stored};
use crate::{Error, Json, Result, Timestamp, json_to_bson};

/// Items changed at once: enough to fill commit groups.
const PARALLEL: usize = 256;

/// One operation of an import log.
#[derive(Clone, PartialEq)]
pub struct ImportOp {
    kind: Kind,
    key: Json,
    data: Json,
    at: Option<Timestamp>,
    actor: Option<String>,
    reason: Option<String>,
}

crate::debug_some!(ImportOp { kind, at });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Replace,
    Update,
    Delete,
}

impl ImportOp {
    /// Reads `{op: create|replace|update|delete, key, data?, at?, actor?, reason?}`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for another shape.
    pub fn parse(operation: &Json) -> Result<Self> {
        let map = operation.as_object().ok_or_else(|| Error::validation("an operation is a JSON object"))?;
        if let Some(unknown) = map.keys().find(|key| !["op", "key", "data", "at", "actor", "reason"].contains(&key.as_str())) {
            return Err(Error::validation(format!("`{unknown}` is no part of an operation: op, key, data, at, actor and reason are")));
        }
        let kind = match map.get("op").and_then(Json::as_str) {
            Some("create") => Kind::Create,
            Some("replace") => Kind::Replace,
            Some("update") => Kind::Update,
            Some("delete") => Kind::Delete,
            _ => return Err(Error::validation("`op` is create, replace, update or delete")),
        };
        let key = map.get("key").filter(|key| key.is_string() || key.is_number() || key.is_boolean());
        let key = key.ok_or_else(|| Error::validation("`key` is a string, a number or a boolean"))?.clone();
        // Otherwise it would fail later, together with all operations beside it.
        json_to_bson(&key)?;
        let data = map.get("data").cloned().unwrap_or(Json::Null);
        match (kind, &data) {
            (Kind::Delete, Json::Null) | (Kind::Create | Kind::Replace | Kind::Update, Json::Object(_)) => {}
            (Kind::Delete, _) => return Err(Error::validation("a delete has no `data`")),
            _ => return Err(Error::validation("`data` is the document, a JSON object")),
        }
        let text = |name: &str| match map.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::validation(format!("`{name}` is text"))),
        };
        let at = text("at")?.map(|at| Timestamp::parse(&at)).transpose()?;
        Ok(Self { kind, key, data, at, actor: text("actor")?, reason: text("reason")? })
    }
}

/// What became of one operation of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// It made a version, or found the item as it wants it.
    Written(Written),
    /// It is not newer than the newest version ever written for its key: it was imported before.
    Skipped,
}

/// An import under way; see [`Collection::import`].
#[derive(Clone, Debug)]
pub struct Importer {
    collection: Collection,
    scope: Scope,
    key: String,
}

/// What is known of a key between two of its operations.
#[derive(Clone, Copy, Debug, Default)]
struct KeyState {
    live: Option<ItemId>,
    newest: Option<Timestamp>,
}

/// A write that one operation comes to.
struct Step {
    /// The operation's place in the log.
    index: usize,
    id: ItemId,
    change: Change,
    options: WriteOptions,
}

impl Importer {
    pub(super) async fn new(collection: Collection, key: String) -> Result<Self> {
        let engine = &collection.engine;
        let named = |e: Error| e.during("import").in_collection(&engine.names.collection);
        let declared = &engine.settings.map.indexed;
        if key.is_empty() || key.starts_with('$') || key.contains(['.', '\0']) {
            return Err(named(Error::validation("the key property is the name of a top-level property")));
        }
        if !declared.is_empty() && !declared.iter().any(|path| plain(path) == key) {
            let message = format!("the key property `{key}` is not among the collection's indexedProps: {}", declared.join(", "));
            return Err(named(Error::validation(message)));
        }
        let scope = collection.scope().await.map_err(named)?.clone();
        engine.ensure_property(&key, &scope).await.map_err(named)?;
        // Items are found by their heads; none may lag behind what a killed import has committed.
        engine.settled_cv().await.map_err(named)?;
        Ok(Self { collection, scope, key })
    }

    /// Carries out operations; one result each, in their order. Operations of one key happen one after the other, all others at once.
    ///
    /// With `stop`, the first operation that cannot be carried out ends the import there: nothing of it and of those behind it is written, and the
    /// results end with its error. (A failing store can still leave later operations of other keys written; importing again is safe.)
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails before anything is written.
    pub async fn apply(&self, operations: Vec<ImportOp>, stop: bool) -> Result<Vec<Result<ImportOutcome>>> {
        let mut states = self.load(&operations).await?;
        let mut results: Vec<Option<Result<ImportOutcome>>> = Vec::with_capacity(operations.len());
        // One queue a key, in the order of the log.
        let mut queues: HashMap<Vec<u8>, Vec<Step>> = HashMap::new();
        for (index, operation) in operations.into_iter().enumerate() {
            let key = encode(&json_to_bson(&operation.key)?);
            let state = states.entry(key.clone()).or_default();
            match self.plan(index, operation, state) {
                Ok(None) => results.push(Some(Ok(ImportOutcome::Skipped))),
                Ok(Some(step)) => {
                    results.push(None);
                    queues.entry(key).or_default().push(step);
                }
                Err(error) => {
                    results.push(Some(Err(error)));
                    if stop {
                        break;
                    }
                }
            }
        }
        let queues = futures::stream::iter(queues.into_values().map(|queue| self.carry_out(queue)));
        let mut done = queues.buffer_unordered(PARALLEL);
        while let Some(outcomes) = done.next().await {
            for (index, outcome) in outcomes {
                results[index] = Some(outcome);
            }
        }
        let missing = || Err(Error::database("the operation before it on the same key failed").during("import"));
        let mut results: Vec<_> = results.into_iter().map(|result| result.unwrap_or_else(missing)).collect();
        if stop && let Some(failed) = results.iter().position(Result::is_err) {
            results.truncate(failed + 1);
        }
        Ok(results)
    }

    /// The operations of one key, up to the first that fails.
    async fn carry_out(&self, queue: Vec<Step>) -> Vec<(usize, Result<ImportOutcome>)> {
        let engine = &self.collection.engine;
        let mut outcomes = Vec::with_capacity(queue.len());
        for Step { index, id, change, options } in queue {
            let done = engine.write(id, &change, &options, &self.scope, None).await;
            let failed = done.is_err();
            outcomes.push((index, done.map(|done| ImportOutcome::Written(done.into()))));
            if failed {
                break;
            }
        }
        outcomes
    }

    /// What the store knows of the keys these operations are about.
    async fn load(&self, operations: &[ImportOp]) -> Result<HashMap<Vec<u8>, KeyState>> {
        let engine = &self.collection.engine;
        let path = format!("metaIndexed.{}", self.key);
        let mut values: HashMap<Vec<u8>, Bson> = HashMap::new();
        for operation in operations {
            let value = json_to_bson(&operation.key)?;
            values.insert(encode(&value), value);
        }
        let filter = self.scope.narrow(Filter::any_of(&*path, values.into_values().collect()));
        let mut heads = engine.scan_heads(Scan { filter, without: vec!["fullShadow".into()], ..Scan::default() });
        let mut states: HashMap<Vec<u8>, KeyState> = HashMap::new();
        while let Some(head) = heads.try_next().await? {
            let entry = stored::decode_towards(&head.content.indexed, &self.key)?;
            let Some(key) = value_at(&entry, &self.key) else { continue };
            let state = states.entry(encode(key)).or_default();
            state.newest = state.newest.max(Some(head.updated_at));
            if head.is_live() {
                state.live = Some(head.id);
            }
        }
        Ok(states)
    }

    /// What an operation comes to, given what is known of its key; none if it was imported before. The knowledge moves on with it.
    fn plan(&self, index: usize, operation: ImportOp, state: &mut KeyState) -> Result<Option<Step>> {
        let engine = &self.collection.engine;
        let ImportOp { kind, key, data, at, actor, reason } = operation;
        if let (Some(at), Some(newest)) = (at, state.newest)
            && at <= newest
        {
            return Ok(None);
        }
        let has_key = data.get(&self.key) == Some(&key);
        if matches!(kind, Kind::Create | Kind::Replace) && !has_key {
            return Err(Error::validation(format!("`data.{}` is not the operation's key {key}", self.key)));
        }
        if kind == Kind::Update && data.get(&self.key).is_some() && !has_key {
            return Err(Error::validation(format!("an update cannot change the key {key}: `data.{}` differs", self.key)));
        }
        let options = WriteOptions { actor, reason, at, ..WriteOptions::default() };
        let document = || payload::checked(data.clone()).map(Json::Object);
        let live = || state.live.ok_or_else(|| Error::not_found(format!("there is no live item with the key {key}")));
        let (id, change) = match kind {
            Kind::Create if state.live.is_some() => return Err(Error::validation(format!("a live item has the key {key} already"))),
            Kind::Create => {
                (ItemId::new(engine.runtime.random.object_id()), Change::Create { document: document()?, lineage: Lineage::default() })
            }
            Kind::Replace => (live()?, Change::Replace { document: document()? }),
            Kind::Update => (live()?, Change::Update { document: document()? }),
            Kind::Delete => (live()?, Change::Delete),
        };
        state.live = (kind != Kind::Delete).then_some(id);
        state.newest = state.newest.max(Some(at.unwrap_or_else(|| engine.runtime.clock.now())));
        Ok(Some(Step { index, id, change, options }))
    }
}
