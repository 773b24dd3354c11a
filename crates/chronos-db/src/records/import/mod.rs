//! Importing a log of changes: items are known by a property, times are kept, and importing the same log
//! again changes nothing.
//!
//! A change is recognised by what it is: its row keeps a digest of its key, time, kind and content, and of
//! how often it came. A change without a time is recognised by its line, if the log has a name.

mod identity;
mod op;
mod progress;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bson::spec::BinarySubtype;
use bson::{Binary, Bson};
use futures::{StreamExt as _, TryStreamExt as _};

use self::identity::{Before, Memory};
pub use self::op::ImportOp;
use self::op::Kind;
use self::progress::{LogName, Progress};
use super::collection::Collection;
use super::indexing::plain;
use super::model::{ImportMark, ItemId, Lineage, MarkId, Op, Row, int};
use super::payload;
use super::read::Found;
use super::scope::{Scope, by_tenant};
use super::view::Written;
use super::write::{Change, WriteOptions};
use crate::config::UpdateMode;
use crate::documents::filter::key_encoding::{encode, value_at};
use crate::documents::{Direction, Filter, Index, Scan, raw_bson};
use crate::{Error, Json, Result, Timestamp, json_to_bson};

/// Items changed at once: enough to fill commit groups.
const PARALLEL: usize = 256;
/// Lines looked up together.
const LOOKED_UP: usize = 1_000;

/// What became of one operation of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// It made a version, or found the item as it wants it.
    Written(Written),
    /// It was imported before.
    Skipped,
}

/// An import under way; see [`Collection::import`].
#[derive(Clone)]
pub struct Importer {
    collection: Collection,
    scope: Scope,
    key: String,
    log: Option<LogName>,
    run: Arc<Mutex<Run>>,
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Importer")
            .field("collection", &self.collection.name())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Where this run of the log stands.
#[derive(Default)]
struct Run {
    memory: Memory,
    progress: Progress,
    /// The last line that changed an item, of those that were begun before this run and may not all be
    /// carried out.
    reached: HashMap<ItemId, u64>,
    /// The line of the last operation.
    line: u64,
}

/// What is known of a key between two of its operations.
#[derive(Clone, Debug, Default)]
struct KeyState {
    live: Option<ItemId>,
    /// The time of the newest version of its items.
    newest: Option<Timestamp>,
    /// The time that version has in its log, once it was asked for or written; it may be some milliseconds
    /// earlier.
    newest_in_log: Option<Timestamp>,
    items: Vec<ItemId>,
}

/// An operation with what it is recognised by.
struct Known {
    operation: ImportOp,
    key: Vec<u8>,
    line: u64,
    mark: Option<MarkId>,
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
    pub(super) async fn new(collection: Collection, key: String, log: Option<String>) -> Result<Self> {
        let engine = &collection.engine;
        let named = |e: Error| e.during("import").in_collection(&engine.names.collection);
        let declared = &engine.settings.map.indexed;
        if key.is_empty() || key.starts_with('$') || key.contains(['.', '\0']) {
            return Err(named(Error::validation("the key property is the name of a top-level property")));
        }
        if !declared.is_empty() && !declared.iter().any(|path| plain(path) == key) {
            let message = format!(
                "the key property `{key}` is not among the collection's indexedProps: {}",
                declared.join(", ")
            );
            return Err(named(Error::validation(message)));
        }
        let scope = collection.scope().await.map_err(named)?.clone();
        engine.ensure_property(&key, &scope).await.map_err(named)?;
        // Items are found by their heads; none may lag behind what a killed import has committed.
        engine.settled_cv().await.map_err(named)?;
        let marks = Index::on("ver_import", &["importId"]).only_if_exists("importId");
        let marks = if scope.is_one_of_several() { by_tenant(marks) } else { marks };
        engine.documents.ensure(&engine.names.ver, &[marks]).await.map_err(named)?;
        let log = log.map(|name| LogName::new(&name, scope.owner())).transpose().map_err(named)?;
        let importer = Self { collection, scope, key, log, run: Arc::default() };
        if let Some(log) = &importer.log {
            let engine = &importer.collection.engine;
            let progress = log
                .read(engine)
                .await
                .map_err(|e| e.during("import").in_collection(&engine.names.collection))?;
            let reached = importer.reached(log, progress).await?;
            *importer.run() = Run { progress, reached, ..Run::default() };
        }
        Ok(importer)
    }

    /// Carries out operations; one result each, in their order. Operations of one key happen one after the
    /// other, all others at once.
    ///
    /// With `stop`, the first operation that cannot be carried out ends the import there: nothing of it and
    /// of those behind it is written, and the results end with its error. (A failing store can still leave
    /// later operations of other keys written; importing again is safe.)
    ///
    /// Several changes of a key at one time are carried out in the order of the log, each a millisecond after
    /// the one before. A change that is older than the newest of its key and was never imported is an error
    /// of its own.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails before anything is written.
    pub async fn apply(&self, operations: Vec<ImportOp>, stop: bool) -> Result<Vec<Result<ImportOutcome>>> {
        let mut states = self.load(&operations).await?;
        let (operations, done) = self.recognise(operations)?;
        let found = self.marked(&operations, &states, done).await?;
        let last = operations.last().map_or(0, |known| known.line);
        if let Some(log) = &self.log {
            let begun =
                self.run().progress.begin(last, operations.iter().any(|known| known.operation.at.is_none()));
            if let Some(begun) = begun {
                log.write(&self.collection.engine, begun).await?;
            }
        }
        let mut results: Vec<Option<Result<ImportOutcome>>> = Vec::with_capacity(operations.len());
        // One queue a key, in the order of the log.
        let mut queues: HashMap<Vec<u8>, Vec<Step>> = HashMap::new();
        for (index, known) in operations.into_iter().enumerate() {
            let key = known.key.clone();
            let state = states.entry(key.clone()).or_default();
            match self.plan(index, known, state, &found, done).await {
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
        let missing =
            || Err(Error::database("the operation before it on the same key failed").during("import"));
        let mut results: Vec<_> = results.into_iter().map(|result| result.unwrap_or_else(missing)).collect();
        if let Some(log) = &self.log {
            let ended = self.run().progress.end(last, results.iter().all(Result::is_ok));
            if let Some(ended) = ended {
                log.write(&self.collection.engine, ended).await?;
            }
        }
        if stop && let Some(failed) = results.iter().position(Result::is_err) {
            results.truncate(failed + 1);
        }
        Ok(results)
    }

    /// What the lines that an earlier run had begun came to.
    async fn reached(&self, log: &LogName, progress: Progress) -> Result<HashMap<ItemId, u64>> {
        let mut reached = HashMap::new();
        let lines: Vec<u64> = (progress.done + 1..=progress.begun).collect();
        for lines in lines.chunks(LOOKED_UP) {
            let marks: HashMap<MarkId, u64> =
                lines.iter().map(|line| (identity::line(log.name(), *line), *line)).collect();
            for (mark, (id, _)) in self.rows_of(marks.keys().copied()).await? {
                let line: &mut u64 = reached.entry(id).or_default();
                *line = marks.get(&mark).copied().unwrap_or(0).max(*line);
            }
        }
        Ok(reached)
    }

    /// The versions with these marks.
    async fn rows_of(&self, marks: impl Iterator<Item = MarkId>) -> Result<HashMap<MarkId, (ItemId, i64)>> {
        let marks: Vec<Bson> = marks
            .map(|mark| Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: mark.to_vec() }))
            .collect();
        let mut found = HashMap::new();
        if marks.is_empty() {
            return Ok(found);
        }
        let filter = self.scope.narrow(Filter::any_of("importId", marks));
        let mut rows = self.collection.engine.scan_rows(without_payload(Scan { filter, ..Scan::default() }));
        while let Some(row) = rows.try_next().await? {
            if let Some(mark) = row.import {
                found.insert(mark.id, (row.id, row.ov));
            }
        }
        Ok(found)
    }

    fn run(&self) -> std::sync::MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the operations their lines and what they are recognised by; also the line up to which the log
    /// was carried out before.
    fn recognise(&self, operations: Vec<ImportOp>) -> Result<(Vec<Known>, u64)> {
        let mut run = self.run();
        let done = run.progress.done;
        let mut known = Vec::with_capacity(operations.len());
        for operation in operations {
            let key = encode(&json_to_bson(&operation.key)?);
            run.line = operation.line.unwrap_or(run.line + 1);
            let line = run.line;
            let mark = match (operation.at, &self.log) {
                (Some(at), _) => Some(run.memory.of(&key).identity(&operation, at)?),
                (None, Some(log)) => Some(identity::line(log.name(), line)),
                (None, None) => None,
            };
            known.push(Known { operation, key, line, mark });
        }
        Ok((known, done))
    }

    /// The versions that those of these changes made that may have been imported before.
    async fn marked(
        &self,
        operations: &[Known],
        states: &HashMap<Vec<u8>, KeyState>,
        done: u64,
    ) -> Result<HashMap<MarkId, (ItemId, i64)>> {
        let begun = self.run().progress.begun;
        let mut marks = HashSet::new();
        // Within the batch a change may be as old as one before it that is new.
        let mut latest: HashMap<&[u8], Timestamp> = HashMap::new();
        for Known { operation, key, line, mark } in operations {
            let newest = states.get(key).and_then(|state| state.newest);
            let may_be = match operation.at {
                Some(at) => {
                    newest.is_some_and(|newest| at <= newest)
                        || latest.get(&**key).is_some_and(|latest| at <= *latest)
                }
                None => *line <= begun,
            };
            if let Some(at) = operation.at {
                let latest = latest.entry(key).or_insert(at);
                *latest = at.max(*latest);
            }
            if let Some(mark) = mark.filter(|_| may_be && *line > done) {
                marks.insert(mark);
            }
        }
        self.rows_of(marks.into_iter()).await
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
        let mut heads =
            engine.scan_heads(Scan { filter, without: vec!["fullShadow".into()], ..Scan::default() });
        let mut states: HashMap<Vec<u8>, KeyState> = HashMap::new();
        while let Some(head) = heads.try_next().await? {
            let entry = raw_bson::decode_towards(&head.content.indexed, &self.key)?;
            let Some(key) = value_at(&entry, &self.key) else { continue };
            let state = states.entry(encode(key)).or_default();
            state.newest = state.newest.max(Some(head.updated_at));
            state.items.push(head.id);
            if head.is_live() {
                state.live = Some(head.id);
            }
        }
        Ok(states)
    }

    /// What an operation comes to, given what is known of its key; none if it was imported before. The
    /// knowledge moves on with it.
    async fn plan(
        &self,
        index: usize,
        known: Known,
        state: &mut KeyState,
        found: &HashMap<MarkId, (ItemId, i64)>,
        done: u64,
    ) -> Result<Option<Step>> {
        let Known { operation, key: encoded, line, mark } = known;
        if line <= done {
            return Ok(None);
        }
        let before = self.run().memory.of(&encoded).before;
        if let Some((id, ov)) = mark.and_then(|mark| found.get(&mark)) {
            self.run().memory.of(&encoded).before = Some(Before::Then(*id, *ov));
            return Ok(None);
        }
        let mut import = mark.map(|id| ImportMark { id, at: None });
        let mut at = operation.at;
        match (at, state.newest) {
            (Some(time), Some(newest)) if time <= newest => {
                if before != Some(Before::Now)
                    && let Some(earlier) = self.imported_then(&operation, time, state, before).await?
                {
                    self.run().memory.of(&encoded).before = Some(earlier);
                    return Ok(None);
                }
                let newest_in_log = match state.newest_in_log {
                    Some(known) => known,
                    None => self.newest_in_log(state).await?.unwrap_or(newest),
                };
                state.newest_in_log = Some(newest_in_log);
                if time < newest_in_log {
                    return Err(Error::validation(format!(
                        "the change of {time} is older than the newest of the key {}, which is of {newest_in_log}, and was never imported",
                        operation.key
                    )));
                }
                at = Some(newest.plus_millis(1));
                import = import.map(|mark| ImportMark { at: Some(time), ..mark });
            }
            // Lines of a key are carried out one after the other: this one was, and changed nothing.
            (None, _)
                if state
                    .items
                    .iter()
                    .any(|id| self.run().reached.get(id).is_some_and(|reached| *reached > line)) =>
            {
                return Ok(None);
            }
            _ => {}
        }
        let in_log = operation.at;
        let step = self.step(index, operation, at, import, state)?;
        state.newest_in_log = in_log.or(state.newest_in_log);
        self.run().memory.of(&encoded).before = Some(Before::Now);
        Ok(Some(step))
    }

    fn step(
        &self,
        index: usize,
        operation: ImportOp,
        at: Option<Timestamp>,
        import: Option<ImportMark>,
        state: &mut KeyState,
    ) -> Result<Step> {
        let engine = &self.collection.engine;
        let ImportOp { kind, key, data, actor, reason, .. } = operation;
        let has_key = data.get(&self.key) == Some(&key);
        if matches!(kind, Kind::Create | Kind::Replace) && !has_key {
            return Err(Error::validation(format!("`data.{}` is not the operation's key {key}", self.key)));
        }
        if kind == Kind::Update && data.get(&self.key).is_some() && !has_key {
            return Err(Error::validation(format!(
                "an update cannot change the key {key}: `data.{}` differs",
                self.key
            )));
        }
        let options = WriteOptions { actor, reason, at, import, ..WriteOptions::default() };
        let document = || payload::checked(data.clone()).map(Json::Object);
        let live = || {
            state.live.ok_or_else(|| Error::not_found(format!("there is no live item with the key {key}")))
        };
        let (id, change) = match kind {
            Kind::Create if state.live.is_some() => {
                return Err(Error::validation(format!("a live item has the key {key} already")));
            }
            Kind::Create => (
                ItemId::new(engine.env.random.object_id()),
                Change::Create { document: document()?, lineage: Lineage::default() },
            ),
            Kind::Replace => (live()?, Change::Replace { document: document()? }),
            Kind::Update => (live()?, Change::Update { document: document()? }),
            Kind::Delete => (live()?, Change::Delete),
        };
        state.live = (kind != Kind::Delete).then_some(id);
        state.newest = state.newest.max(Some(at.unwrap_or_else(|| engine.env.clock.now())));
        Ok(Step { index, id, change, options })
    }

    /// Where a change that is not newer than its key's newest version left no row of its own: whether it was
    /// imported by a version of this library that kept no marks, or changed nothing when it was. Returns the
    /// version it left its item at.
    async fn imported_then(
        &self,
        operation: &ImportOp,
        at: Timestamp,
        state: &KeyState,
        before: Option<Before>,
    ) -> Result<Option<Before>> {
        let made = |op: Op| match operation.kind {
            Kind::Create => op == Op::Create,
            Kind::Replace | Kind::Update => op == Op::Update,
            Kind::Delete => matches!(op, Op::Delete | Op::Erase),
        };
        for id in &state.items {
            let filter = Filter::eq("itemId", id.bson()).and(Filter::eq("at", at));
            let row = self
                .collection
                .engine
                .first_row(without_payload(Scan { filter, limit: Some(1), ..Scan::default() }))
                .await?;
            if let Some(row) = row.filter(|row| row.import.is_none() && made(row.op)) {
                return Ok(Some(Before::Then(row.id, row.ov)));
            }
        }
        let follows = match before {
            Some(Before::Then(id, ov)) => Some((id, ov)),
            Some(Before::Now) => None,
            None => self.version_before(at, state).await?,
        };
        Ok(match follows {
            Some((id, ov)) if !self.changes(operation, id, ov).await? => Some(Before::Then(id, ov)),
            _ => None,
        })
    }

    /// The version that a key had before a moment of the log.
    async fn version_before(&self, at: Timestamp, state: &KeyState) -> Result<Option<(ItemId, i64)>> {
        let mut newest: Option<Row> = None;
        for id in &state.items {
            let filter = Filter::eq("itemId", id.bson()).and(Filter::lte("at", at.plus_millis(-1)));
            let order = vec![("at".into(), Direction::Descending)];
            let row = self
                .collection
                .engine
                .first_row(without_payload(Scan { filter, order, limit: Some(1), ..Scan::default() }))
                .await?;
            newest = newest.into_iter().chain(row).max_by_key(|row| row.at);
        }
        Ok(newest.map(|row| (row.id, row.ov)))
    }

    /// The time in its log of the newest version of a key.
    async fn newest_in_log(&self, state: &KeyState) -> Result<Option<Timestamp>> {
        let mut newest = None;
        for id in &state.items {
            let filter = Filter::eq("itemId", id.bson());
            let order = vec![("ov".into(), Direction::Descending)];
            let row = self
                .collection
                .engine
                .first_row(without_payload(Scan { filter, order, limit: Some(1), ..Scan::default() }))
                .await?;
            newest = newest.max(row.map(|row| row.import.and_then(|mark| mark.at).unwrap_or(row.at)));
        }
        Ok(newest)
    }

    /// Whether a change of a version would have made another one.
    async fn changes(&self, operation: &ImportOp, id: ItemId, ov: i64) -> Result<bool> {
        let engine = &self.collection.engine;
        if matches!(operation.kind, Kind::Create | Kind::Delete) {
            return Ok(true);
        }
        let filter = Filter::eq("itemId", id.bson()).and(Filter::eq("ov", int(ov)));
        let Some(row) = engine.first_row(Scan { filter, limit: Some(1), ..Scan::default() }).await? else {
            return Ok(true);
        };
        if !matches!(row.op, Op::Create | Op::Update | Op::Restore) {
            return Ok(true);
        }
        let at = row.at;
        let current = payload::parse(&engine.bytes(&Found::from_row(row, at)).await?)?;
        let new = payload::checked(operation.data.clone())?;
        if operation.kind == Kind::Update && engine.settings.update_mode == UpdateMode::Merge {
            return Ok(new.iter().any(|(name, value)| current.get(name) != Some(value)));
        }
        Ok(new != current)
    }
}

fn without_payload(scan: Scan) -> Scan {
    Scan { without: ["inline", "riders", "metaIndexed"].map(str::to_owned).to_vec(), ..scan }
}
