//! What passes with time: items become `processed`, and the payloads that heads keep go.
//!
//! Both put the head they read again, changed, under the row it was made from: of a head that a writer has
//! replaced meanwhile nothing is touched. Neither makes a version. They may run at any time and in any number.

use std::sync::Arc;

use bson::{Bson, Document};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::documents::filter::Test;
use crate::documents::{Batch, Filter, Outcome, Scan, Write};
use crate::records::document::payload;
use crate::records::index::RecordIndex;
use crate::records::index::scope::Scope;
use crate::records::model::{Head, ItemId, State, int};
use crate::records::read::Reader;
use crate::{Error, Result, Timestamp};

/// Heads that are held at once: they have payloads in them.
const HEADS: usize = 16;
/// So often another writer may be faster before a single item is given up.
const TRIES: usize = 8;
/// What is not needed to find heads.
const HEAVY: [&str; 4] = ["fullShadow", "payload", "metaIndexed", "refs"];
/// The time and the length of the payload that a head keeps.
pub(crate) const SHADOW_AT: &str = "fullShadow.at";
const SHADOW_BYTES: &str = "fullShadow.bytes";

/// Takes items and their heads through time.
pub(crate) struct Expirer {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) reader: Arc<Reader>,
}

/// Which payloads leave their heads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShadowBounds {
    /// Those of versions that were written then or earlier.
    pub(crate) before: Option<Timestamp>,
    /// Those of more bytes.
    pub(crate) max_bytes: Option<usize>,
    /// All.
    pub(crate) all: bool,
}

/// What was done to heads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expired {
    /// Heads that were looked at.
    pub(crate) seen: u64,
    /// Heads that were changed, or would be.
    pub(crate) changed: u64,
    /// Bytes of payloads that left them.
    pub(crate) bytes: u64,
}

impl Expirer {
    /// Marks the items whose newest version was written at `before` or earlier and is stored, `most` at most.
    pub(crate) async fn mark(
        &self,
        before: Timestamp,
        most: Option<u64>,
        dry_run: bool,
        scope: &Scope,
    ) -> Result<Expired> {
        // Heads of the legacy library have no state, nor have those of what is erased.
        let stored = Test::In(vec![State::New.as_str().into(), Bson::Null]);
        let due = Filter::Field("state".into(), stored)
            .and(Filter::lte("updatedAt", before))
            .and(Filter::eq("erased", Bson::Null));
        let change = |head: Head| {
            let is_due = head.meta.payload.state == State::New && head.updated_at <= before;
            is_due.then(|| (processed(head), 0))
        };
        self.change(due, most, dry_run, scope, change).await
    }

    /// Marks one item, whatever its age. Returns whether this call did, and the state before.
    pub(crate) async fn mark_one(&self, id: ItemId, dry_run: bool, scope: &Scope) -> Result<(bool, State)> {
        for _ in 0..TRIES {
            let seen = |head: &Head| !head.erased && scope.sees(head.meta.tenant.as_deref());
            let head = self.index.head_or_row(id).await?.filter(seen);
            let head = head.ok_or_else(|| Error::not_found("there is no such item"))?;
            let state = head.meta.payload.state;
            if state != State::New || dry_run {
                return Ok((state == State::New, state));
            }
            let guard = head.unchanged();
            let head = processed(self.whole(head).await?);
            self.index.env.fail.hit("expire.before_put")?;
            let mut batch = Batch::new();
            batch.push(&self.index.names.head, Write::put(head.stored(), guard));
            if self.index.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied) {
                return Ok((true, state));
            }
        }
        Err(Error::database("the item is written again and again meanwhile").retryable())
    }

    /// Takes payloads out of heads; every one of them is in a row or an object as well.
    pub(crate) async fn shrink(&self, bounds: ShadowBounds, dry_run: bool, scope: &Scope) -> Result<Expired> {
        let mut parts = Vec::new();
        if bounds.all {
            parts.push(Filter::Field(SHADOW_AT.into(), Test::Exists(true)));
        }
        if let Some(before) = bounds.before {
            parts.push(Filter::lte(SHADOW_AT, before));
        }
        if let Some(bytes) = bounds.max_bytes {
            parts.push(Filter::gt(SHADOW_BYTES, int(i64::try_from(bytes).unwrap_or(i64::MAX))));
        }
        let due = match parts.pop() {
            None => return Ok(Expired::default()),
            Some(only) if parts.is_empty() => only,
            Some(last) => Filter::Or(parts.into_iter().chain([last]).collect()),
        };
        let change = |head: Head| {
            let goes = head.shadow.as_ref().is_some_and(|shadow| {
                bounds.all
                    || bounds.before.is_some_and(|before| shadow.at <= before)
                    || bounds.max_bytes.is_some_and(|most| shadow.bytes.len() > most)
            });
            let bytes = head.shadow.as_ref().map_or(0, |shadow| shadow.bytes.len() as u64);
            goes.then_some((Head { shadow: None, ..head }, bytes))
        };
        self.change(due, None, dry_run, scope, change).await
    }

    /// Puts what `change` makes of the heads that match. It looks at each of them once more, as it is when its
    /// turn comes.
    async fn change(
        &self,
        due: Filter,
        most: Option<u64>,
        dry_run: bool,
        scope: &Scope,
        change: impl Fn(Head) -> Option<(Head, u64)> + Send + Sync,
    ) -> Result<Expired> {
        let scan = Scan {
            filter: scope.narrow(due),
            limit: most,
            without: HEAVY.map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let found = self.index.documents.scan(&self.index.names.head, scan);
        let mut found = found.try_chunks(HEADS);
        let mut done = Expired::default();
        while let Some(chunk) = found.next().await {
            let chunk = chunk.map_err(|error| error.1)?;
            let ids: Vec<ItemId> = chunk.iter().filter_map(id_of).collect();
            let (mut batch, mut freed) = (Batch::new(), Vec::new());
            for head in self.index.heads(&ids).await?.into_values() {
                if head.erased || !scope.sees(head.meta.tenant.as_deref()) {
                    continue;
                }
                done.seen += 1;
                let guard = head.unchanged();
                let Some((changed, bytes)) = change(self.whole(head).await?) else { continue };
                batch.push(&self.index.names.head, Write::put(changed.stored(), guard));
                freed.push(bytes);
            }
            if freed.is_empty() {
                continue;
            }
            let outcomes = if dry_run {
                vec![true; freed.len()]
            } else {
                self.index.env.fail.hit("expire.before_put")?;
                self.index.documents.apply(batch).await?.iter().map(Outcome::is_applied).collect()
            };
            for (bytes, _) in freed.into_iter().zip(outcomes).filter(|(_, applied)| *applied) {
                done.changed += 1;
                done.bytes += bytes;
            }
        }
        Ok(done)
    }

    /// A head that says all there is to say of its version: what the legacy library recorded in the document
    /// alone would be lost with the first head that has a state.
    async fn whole(&self, mut head: Head) -> Result<Head> {
        if head.meta.legacy {
            let bytes = self.reader.payload(&head).await?;
            if let (_, Some(inherited)) =
                payload::parse_both(&bytes).map_err(|error| error.on_item(head.id))?
            {
                head.meta.inherit(inherited);
            }
        }
        Ok(head)
    }
}

fn processed(mut head: Head) -> Head {
    head.meta.payload.state = State::Processed;
    head
}

fn id_of(head: &Document) -> Option<ItemId> {
    head.get_object_id("_id").ok().map(ItemId::new)
}
