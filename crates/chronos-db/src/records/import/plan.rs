//! From operations to the writes they come to.

use super::identity::Before;
use super::importer::Importer;
use super::op::ImportOp;
use super::op::Kind;
use super::steps::{KeyState, Known, Step, without_payload};
use crate::config::UpdateMode;
use crate::documents::filter::key_encoding::{encode, value_at};
use crate::documents::{Direction, Filter, Scan, raw_bson};
use crate::records::document::payload;
use crate::records::model::{ImportMark, ItemId, Lineage, MarkId, Op, Row, VersionSelector};
use crate::records::read::ResolvedVersion;
use crate::records::write::{Change, WriteOptions};
use crate::{Error, Json, Result, Timestamp, json_to_bson};
use bson::Bson;
use futures::TryStreamExt as _;
use std::collections::HashMap;

impl Importer {
    /// What the store knows of the keys these operations are about.
    pub(super) async fn load(&self, operations: &[ImportOp]) -> Result<HashMap<Vec<u8>, KeyState>> {
        let workers = &self.collection.workers;
        let path = format!("metaIndexed.{}", self.key);
        let mut values: HashMap<Vec<u8>, Bson> = HashMap::new();
        for operation in operations {
            let value = json_to_bson(&operation.key)?;
            values.insert(encode(&value), value);
        }
        let filter = self.scope.narrow(Filter::any_of(&*path, values.into_values().collect()));
        let mut heads =
            workers.index.scan_heads(Scan { filter, without: vec!["fullShadow".into()], ..Scan::default() });
        let mut states: HashMap<Vec<u8>, KeyState> = HashMap::new();
        while let Some(head) = heads.try_next().await? {
            let entry = raw_bson::decode_towards(&head.meta.indexed, &self.key)?;
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
    pub(super) async fn plan(
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
        let before = self.run.lock().memory.of(&encoded).before;
        if let Some((id, ov)) = mark.and_then(|mark| found.get(&mark)) {
            self.run.lock().memory.of(&encoded).before = Some(Before::Then(*id, *ov));
            return Ok(None);
        }
        let mut import = mark.map(|id| ImportMark { id, at: None });
        let mut at = operation.at;
        match (at, state.newest) {
            (Some(time), Some(newest)) if time <= newest => {
                if before != Some(Before::Now)
                    && let Some(earlier) = self.imported_then(&operation, time, state, before).await?
                {
                    self.run.lock().memory.of(&encoded).before = Some(earlier);
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
                    .any(|id| self.run.lock().reached.get(id).is_some_and(|reached| *reached > line)) =>
            {
                return Ok(None);
            }
            _ => {}
        }
        let in_log = operation.at;
        let step = self.step(index, operation, at, import, state)?;
        state.newest_in_log = in_log.or(state.newest_in_log);
        self.run.lock().memory.of(&encoded).before = Some(Before::Now);
        Ok(Some(step))
    }

    pub(super) fn step(
        &self,
        index: usize,
        operation: ImportOp,
        at: Option<Timestamp>,
        import: Option<ImportMark>,
        state: &mut KeyState,
    ) -> Result<Step> {
        let workers = &self.collection.workers;
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
                ItemId::new(workers.index.env.random.object_id()),
                Change::Create { document: document()?, lineage: Lineage::default() },
            ),
            Kind::Replace => (live()?, Change::Replace { document: document()? }),
            Kind::Update => (live()?, Change::Update { document: document()? }),
            Kind::Delete => (live()?, Change::Delete),
        };
        state.live = (kind != Kind::Delete).then_some(id);
        state.newest = state.newest.max(Some(at.unwrap_or_else(|| workers.index.env.clock.now())));
        Ok(Step { index, id, change, options })
    }

    /// Where a change that is not newer than its key's newest version left no row of its own: whether it was
    /// imported by a version of this library that kept no marks, or changed nothing when it was. Returns the
    /// version it left its item at.
    pub(super) async fn imported_then(
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
            let row =
                self.collection.workers.versions.row_at(*id, VersionSelector::At(at), &self.scope).await?;
            if let Some(row) = row.filter(|row| row.at == at && row.import.is_none() && made(row.op)) {
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
    pub(super) async fn version_before(
        &self,
        at: Timestamp,
        state: &KeyState,
    ) -> Result<Option<(ItemId, i64)>> {
        let mut newest: Option<Row> = None;
        for id in &state.items {
            let before = VersionSelector::At(at.plus_millis(-1));
            let row = self.collection.workers.versions.row_at(*id, before, &self.scope).await?;
            newest = newest.into_iter().chain(row).max_by_key(|row| row.at);
        }
        Ok(newest.map(|row| (row.id, row.ov)))
    }

    /// The time in its log of the newest version of a key.
    pub(super) async fn newest_in_log(&self, state: &KeyState) -> Result<Option<Timestamp>> {
        let mut newest = None;
        for id in &state.items {
            let filter = Filter::eq("itemId", id.bson());
            let order = vec![("ov".into(), Direction::Descending)];
            let row = self
                .collection
                .workers
                .index
                .first_row(without_payload(Scan { filter, order, limit: Some(1), ..Scan::default() }))
                .await?;
            newest = newest.max(row.map(|row| row.import.and_then(|mark| mark.at).unwrap_or(row.at)));
        }
        Ok(newest)
    }

    /// Whether a change of a version would have made another one.
    pub(super) async fn changes(&self, operation: &ImportOp, id: ItemId, ov: i64) -> Result<bool> {
        let workers = &self.collection.workers;
        if matches!(operation.kind, Kind::Create | Kind::Delete) {
            return Ok(true);
        }
        let Some(row) = workers.versions.find(id, VersionSelector::Ov(ov), &self.scope).await? else {
            return Ok(true);
        };
        if !matches!(row.op, Op::Create | Op::Update | Op::Restore) {
            return Ok(true);
        }
        let at = row.at;
        let current = payload::parse(&workers.reader.bytes(&ResolvedVersion::from_row(row, at)).await?)?;
        let new = payload::checked(operation.data.clone())?;
        if operation.kind == Kind::Update && workers.index.settings.update_mode == UpdateMode::Merge {
            return Ok(new.iter().any(|(name, value)| current.get(name) != Some(value)));
        }
        Ok(new != current)
    }
}
