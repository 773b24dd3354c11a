//! Watching keys: the changes of the last moments, looked at again and again. Where values' times end, a
//! watcher makes a change of that; one whose user may not write tells it to its own caller alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::{Filter, Scan};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::fields::{ascending, int, text};
use super::keys::{after_prefix, with_prefix};
use super::store::Engine;
use super::values::scope_prefix;
use crate::hot::Change;
use crate::{Result, Scope};

/// A change is looked for so long after its time: its writer asked for the time first and wrote then.
const OVERLAP_MS: i64 = 3_000;
const PAUSE: Duration = Duration::from_millis(30);

/// Time between two looks for values whose time is over, and how many are ended in one.
const ENDS_MS: i64 = 100;
const ENDS: u64 = 500;

/// How long it is remembered which ends were reported without being written.
const REPORTED_MS: i64 = 60_000;

/// The pause after a store did not answer.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

struct Watcher {
    engine: Arc<Engine>,
    of: Scope,
    scope: String,
    prefix: String,
    /// Changes that were seen, of the overlap.
    seen: HashSet<String>,
    ready: VecDeque<Change>,
    /// Values whose time was over by then have been ended.
    ended: i64,
    /// Where this user may not write: the values whose end was reported all the same, with their versions and the
    /// end of their time.
    reported: HashMap<String, (i64, i64)>,
    /// When it was looked last, by the store's clock: what comes later is looked for the next time, also
    /// after an interruption.
    looked_at: Option<i64>,
    /// Whether the last look failed.
    interrupted: bool,
    /// Watching is over.
    over: bool,
}

impl Engine {
    pub(super) async fn watch(
        self: Arc<Self>,
        scope: &Scope,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<Change>>> {
        self.looking().await?;
        let now = self.documents.now().await?;
        let mut watcher = Watcher {
            engine: self,
            ended: now.as_millis(),
            reported: HashMap::new(),
            of: scope.clone(),
            scope: scope_prefix(scope),
            prefix: prefix.to_owned(),
            seen: HashSet::new(),
            ready: VecDeque::new(),
            looked_at: None,
            interrupted: false,
            over: false,
        };
        watcher.look().await?;
        watcher.ready.clear();
        Ok(stream::unfold(watcher, |mut watcher| async move {
            let next = watcher.next().await?;
            Some((next, watcher))
        })
        .boxed())
    }
}

impl Watcher {
    /// Looks for changes that were not seen yet.
    async fn look(&mut self) -> Result<()> {
        let now = self.engine.documents.now().await?.as_millis();
        if now - self.ended >= ENDS_MS {
            self.end_values(now).await?;
        }
        let from = (self.looked_at.map_or(now, |looked_at| looked_at.min(now)) - OVERLAP_MS).max(0);
        let filter = Filter::gt("_id", format!("{}{from:015}", self.scope));
        let filter = match after_prefix(&self.scope) {
            Some(end) => filter
                .and(Filter::Field("_id".to_owned(), chronos_db::documents::filter::Test::Lt(end.into()))),
            None => filter,
        };
        let scan = Scan { filter, order: ascending(&["_id"]), ..Scan::default() };
        let mut recent = HashSet::new();
        for change in self.engine.scan(&self.engine.collections.changes, scan).await? {
            let id = text(&change, "_id")?.to_owned();
            let key = text(&change, "k")?;
            if !self.seen.contains(&id) && key.starts_with(&self.prefix) {
                let version = u64::try_from(int(&change, "v")?).unwrap_or(0);
                let deleted = change.get_bool("d").unwrap_or(false);
                let expired = change.get_bool("x").unwrap_or(false);
                if expired && self.reported.remove(key).is_some() {
                    // A process that may write came later.
                    recent.insert(id);
                    continue;
                }
                self.ready.push_back(Change { key: key.to_owned(), version, deleted, expired });
            }
            recent.insert(id);
        }
        self.seen = recent;
        self.looked_at = Some(now);
        Ok(())
    }

    /// Ends values of this watch whose time was over since the last look. Of several watchers one does it,
    /// and all hear of it.
    async fn end_values(&mut self, now: i64) -> Result<()> {
        let over =
            Filter::gt("until", self.ended).and(Filter::lte("until", now)).and(Filter::exists("until", true));
        let own = with_prefix(&format!("{}{}", self.scope, self.prefix));
        // Without tombstones.
        let scan = Scan {
            filter: over.and(own).and(Filter::exists("d", false)),
            order: ascending(&["until", "_id"]),
            limit: Some(ENDS),
            without: vec!["p".to_owned()],
            ..Scan::default()
        };
        let found = self.engine.scan(&self.engine.collections.values, scan).await?;
        let full = found.len() as u64 == ENDS;
        for value in &found {
            let key = &text(value, "_id")?[self.scope.len()..];
            match self.engine.end_value(&self.of, key).await {
                Err(error) if error.is_forbidden() => {
                    self.tell_end(key, int(value, "v")?, int(value, "until")?)
                }
                ended => ended?,
            }
        }
        self.reported.retain(|_, (_, until)| now - *until < REPORTED_MS);
        self.ended = match found.last() {
            // Others may end in the same millisecond.
            Some(last) if full => int(last, "until")? - 1,
            // One that was given its time so late that it is over may come a little later.
            _ => self.ended.max(now - OVERLAP_MS),
        };
        Ok(())
    }

    /// Tells the end of a value that this user may not write, once.
    fn tell_end(&mut self, key: &str, version: i64, until: i64) {
        if self.reported.get(key).is_some_and(|(reported, _)| *reported == version) {
            return;
        }
        self.reported.insert(key.to_owned(), (version, until));
        // The process that writes the end gives it a higher version than the value's.
        let version = u64::try_from(version).unwrap_or(0).saturating_add(1);
        self.ready.push_back(Change { key: key.to_owned(), version, deleted: true, expired: true });
    }

    /// The next change. A failure that may pass is returned, and watching goes on; after another one there is
    /// nothing more.
    async fn next(&mut self) -> Option<Result<Change>> {
        if self.over {
            return None;
        }
        if std::mem::take(&mut self.interrupted) {
            self.engine.env.clock.sleep(PAUSE_AFTER_FAILURE).await;
        }
        let mut moved = self.engine.moved.subscribe();
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if let Err(error) = self.look().await {
                self.over = !error.is_retryable();
                self.interrupted = true;
                return Some(Err(error));
            }
            if self.ready.is_empty() {
                tokio::select! {
                    biased;
                    // The sender lives as long as the engine.
                    _ = moved.changed() => {}
                    () = self.engine.env.clock.sleep(PAUSE) => {}
                }
            }
        }
    }
}
