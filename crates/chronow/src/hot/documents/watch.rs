//! Watching keys: the changes of the last moments, looked at again and again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::{Filter, Scan};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::keys::after_prefix;
use super::store::{Engine, ascending, int, text};
use super::values::scope_prefix;
use crate::hot::Change;
use crate::{Result, Scope};

/// A change is looked for so long after its time: its writer asked for the time first and wrote then.
const OVERLAP_MS: i64 = 3_000;

const PAUSE: Duration = Duration::from_millis(30);

struct Watcher {
    engine: Arc<Engine>,
    scope: String,
    prefix: String,
    /// Changes that were seen, of the overlap.
    seen: HashSet<String>,
    ready: VecDeque<Change>,
    failed: bool,
}

impl Engine {
    pub(super) async fn watch(self: Arc<Self>, scope: &Scope, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.ready().await?;
        let mut watcher = Watcher {
            engine: self,
            scope: scope_prefix(scope),
            prefix: prefix.to_owned(),
            seen: HashSet::new(),
            ready: VecDeque::new(),
            failed: false,
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
        let from = self.engine.documents.now().await?.plus_millis(-OVERLAP_MS).as_millis().max(0);
        let filter = Filter::gt("_id", format!("{}{from:015}", self.scope));
        let filter = match after_prefix(&self.scope) {
            Some(end) => filter.and(Filter::Field("_id".to_owned(), chronos_db::documents::filter::Test::Lt(end.into()))),
            None => filter,
        };
        let scan = Scan { filter, order: ascending(&["_id"]), ..Scan::default() };
        let mut recent = HashSet::new();
        for change in self.engine.scan(&self.engine.spaces.changes, scan).await? {
            let id = text(&change, "_id")?.to_owned();
            let key = text(&change, "k")?;
            if !self.seen.contains(&id) && key.starts_with(&self.prefix) {
                let version = u64::try_from(int(&change, "v")?).unwrap_or(0);
                let deleted = change.get_bool("d").unwrap_or(false);
                self.ready.push_back(Change { key: key.to_owned(), version, deleted });
            }
            recent.insert(id);
        }
        self.seen = recent;
        Ok(())
    }

    /// The next change; none after a failure was told.
    async fn next(&mut self) -> Option<Result<Change>> {
        if self.failed {
            return None;
        }
        let mut moved = self.engine.moved.subscribe();
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if let Err(error) = self.look().await {
                self.failed = true;
                return Some(Err(error));
            }
            if self.ready.is_empty() {
                tokio::select! {
                    // The sender lives as long as the engine.
                    _ = moved.changed() => {}
                    () = self.engine.runtime.clock.sleep(PAUSE) => {}
                }
            }
        }
    }
}
