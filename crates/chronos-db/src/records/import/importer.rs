//! An import under way.

use super::steps::{KeyState, Known, Step, without_payload};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson};
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use super::identity::{self, Memory};
use super::op::ImportOp;
use super::progress::{LogName, Progress};
use crate::documents::filter::key_encoding::encode;
use crate::documents::{Filter, Index, Scan};
use crate::records::collection::Collection;
use crate::records::document::indexing::plain;
use crate::records::index::scope::{Scope, by_tenant};
use crate::records::model::{ItemId, MarkId};
use crate::records::view::Written;
use crate::records::write::WriteCall;
use crate::telemetry::Operation;
use crate::{Error, Result, Timestamp, json_to_bson};

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
    pub(super) collection: Collection,
    pub(super) scope: Scope,
    pub(super) key: String,
    pub(super) log: Option<LogName>,
    pub(super) run: Arc<Mutex<Run>>,
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
pub(super) struct Run {
    pub(super) memory: Memory,
    pub(super) progress: Progress,
    /// The last line that changed an item, of those that were begun before this run and may not all be
    /// carried out.
    pub(super) reached: HashMap<ItemId, u64>,
    /// The line of the last operation.
    pub(super) line: u64,
}

impl Importer {
    pub(crate) async fn new(collection: Collection, key: String, log: Option<String>) -> Result<Self> {
        let workers = &collection.workers;
        let named = |e: Error| e.during("import").in_collection(&workers.index.names.collection);
        let declared = &workers.index.settings.map.indexed;
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
        workers.schema.ensure_property(&key, &scope).await.map_err(named)?;
        // Items are found by their heads; none may lag behind what a killed import has committed.
        workers.watermark.settled_cv().await.map_err(named)?;
        let marks = Index::on("ver_import", &["importId"]).only_if_exists("importId");
        let marks = if scope.is_one_of_several() { by_tenant(marks) } else { marks };
        workers.index.documents.ensure(&workers.index.names.ver, &[marks]).await.map_err(named)?;
        let log = log.map(|name| LogName::new(&name, scope.owner())).transpose().map_err(named)?;
        let importer = Self { collection, scope, key, log, run: Arc::default() };
        if let Some(log) = &importer.log {
            let workers = &importer.collection.workers;
            let progress = log
                .read(workers)
                .await
                .map_err(|e| e.during("import").in_collection(&workers.index.names.collection))?;
            let reached = importer.reached(log, progress).await?;
            *importer.run.lock() = Run { progress, reached, ..Run::default() };
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
        let observed = self.collection.observed(Operation::Import);
        observed.watch(self.apply_all(operations, stop), |results| Some(results.len() as u64)).await
    }

    async fn apply_all(&self, operations: Vec<ImportOp>, stop: bool) -> Result<Vec<Result<ImportOutcome>>> {
        let mut states = self.load(&operations).await?;
        let (operations, done) = self.recognise(operations)?;
        let found = self.marked(&operations, &states, done).await?;
        let last = operations.last().map_or(0, |known| known.line);
        if let Some(log) = &self.log {
            let begun = self
                .run
                .lock()
                .progress
                .begin(last, operations.iter().any(|known| known.operation.at.is_none()));
            if let Some(begun) = begun {
                log.write(&self.collection.workers, begun).await?;
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
            let ended = self.run.lock().progress.end(last, results.iter().all(Result::is_ok));
            if let Some(ended) = ended {
                log.write(&self.collection.workers, ended).await?;
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
            let mut found = self.rows_of(marks.keys().copied()).await?;
            if found.len() < marks.len() {
                // Lines that changed nothing have no version, so whether one has left is not known before.
                let is_one = |mark: &MarkId| marks.contains_key(mark);
                self.collection.workers.versions.marked(&self.scope, is_one, &mut found).await?;
            }
            for (mark, (id, _)) in found {
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
        let mut rows =
            self.collection.workers.index.scan_rows(without_payload(Scan { filter, ..Scan::default() }));
        while let Some(row) = rows.try_next().await? {
            if let Some(mark) = row.import {
                found.insert(mark.id, (row.id, row.ov));
            }
        }
        Ok(found)
    }

    /// Gives the operations their lines and what they are recognised by; also the line up to which the log
    /// was carried out before.
    fn recognise(&self, operations: Vec<ImportOp>) -> Result<(Vec<Known>, u64)> {
        let mut run = self.run.lock();
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
        if self.collection.workers.index.env.fail.skips("guard.import_marks") {
            return Ok(HashMap::new());
        }
        let begun = self.run.lock().progress.begun;
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
        let mut found = self.rows_of(marks.iter().copied()).await?;
        marks.retain(|mark| !found.contains_key(mark));
        let keys = operations.iter().filter(|known| known.mark.is_some_and(|mark| marks.contains(&mark)));
        let items: HashSet<ItemId> =
            keys.filter_map(|known| states.get(&known.key)).flat_map(|state| &state.items).copied().collect();
        self.collection
            .workers
            .versions
            .marked_of(&items, &self.scope, |mark| marks.contains(mark), &mut found)
            .await?;
        Ok(found)
    }

    /// The operations of one key, up to the first that fails.
    async fn carry_out(&self, queue: Vec<Step>) -> Vec<(usize, Result<ImportOutcome>)> {
        let workers = &self.collection.workers;
        let mut outcomes = Vec::with_capacity(queue.len());
        for Step { index, id, change, options } in queue {
            let done = workers
                .writer
                .write(WriteCall { id, change: &change, options: &options, scope: &self.scope, lock: None })
                .await;
            let failed = done.is_err();
            outcomes.push((index, done.map(|done| ImportOutcome::Written(done.into()))));
            if failed {
                break;
            }
        }
        outcomes
    }
}
