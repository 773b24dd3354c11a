//! The stored counters of one collection.

use std::collections::HashMap;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::change::Change;
use super::period::Period;
use super::record::{Owner, Record};
use super::row::{CountRow, ITEM, Table, VOID_AT};
use crate::documents::filter::Test;
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Index, Namespace, Scan, Write};
use crate::projections::analytics_db::AnalyticsDb;
use crate::records::{ItemId, int};
use crate::{Env, Result, Timestamp};

/// Documents that are read, written or removed at once.
const ROUND: usize = 500;
/// Counts that belong to no totals are those of a recount under way, for so long.
const ABANDONED_MILLIS: i64 = 24 * 3_600_000;

/// Counts by their `_id`.
pub(super) type Rows = HashMap<(Table, String), CountRow>;

/// The counters of one collection in their database.
pub(super) struct CounterStore {
    pub(super) db: Arc<AnalyticsDb>,
    pub(super) documents: Arc<dyn DocumentStore>,
    pub(super) owner: Owner,
    pub(super) env: Env,
}

impl CounterStore {
    fn totals(&self) -> Namespace {
        self.namespace(Table::Unique)
    }

    pub(super) fn namespace(&self, table: Table) -> Namespace {
        self.db.namespace(table.collection())
    }

    /// Before the first write: what lists of counts go by.
    pub(super) async fn ensure(&self) -> Result<()> {
        self.db.ready.get_or_try_init(|| self.prepare()).await.map(drop)
    }

    async fn prepare(&self) -> Result<()> {
        let mut most =
            Index::on("cnt_most", &["totals", "generation", "rule", "propertyName", "occurrences", "_id"]);
        // The most frequent first.
        most.keys[4].1 = Direction::Descending;
        let unique = [
            most.only_if_exists("occurrences"),
            Index::on("cnt_item", &["totals", "generation", ITEM, "_id"]).only_if_exists(ITEM),
            Index::on("cnt_void", &["totals", "generation", VOID_AT, "_id"]).only_if_exists(VOID_AT),
        ];
        self.documents.ensure(&self.totals(), &unique).await?;
        for period in Period::ALL {
            let namespace = self.namespace(Table::Bucket(period));
            self.documents
                .ensure(&namespace, &[Index::on("cnt_from", &["totals", "generation", "from", "_id"])])
                .await?;
        }
        Ok(())
    }

    async fn document(&self) -> Result<Option<Document>> {
        let found = self.documents.get(&self.totals(), vec![self.owner.id.as_str().into()]).await?;
        Ok(found.into_iter().next())
    }

    /// The totals, if anything is stored.
    ///
    /// # Errors
    /// `TXN_ERROR` if they are damaged, or the store fails.
    pub(super) async fn load(&self) -> Result<Option<Record>> {
        let found = self.document().await?;
        found.map(|found| Record::read(&found, &self.owner, self.env.random.object_id())).transpose()
    }

    /// [`load`](Self::load), where damaged ones are as good as none.
    pub(super) async fn load_to_replace(&self) -> Result<Option<Record>> {
        let fresh = self.env.random.object_id();
        Ok(self.document().await?.map(|found| {
            Record::read(&found, &self.owner, fresh).unwrap_or_else(|_| Record::of_damaged(&found, fresh))
        }))
    }

    /// Replaces the totals that these were made from. None if those are no longer there.
    pub(super) async fn put(&self, record: &Record) -> Result<Option<Record>> {
        let document = record.stored(&self.owner);
        let write = match record.guard() {
            Some(_) if self.env.fail.skips("guard.totals") => Write::put(document, Guard::Any),
            Some(guard) => Write::put(document, guard),
            None => Write::insert(document),
        };
        let mut batch = Batch::new();
        batch.push(&self.totals(), write);
        let applied = self.documents.apply(batch).await?.first().is_some_and(|outcome| outcome.is_applied());
        Ok(applied.then(|| record.put()))
    }

    /// The counts that a change is about, as they are stored. A damaged one is named and left out of `change`,
    /// so that it stays as it is.
    pub(super) async fn rows(&self, change: &mut Change<'_>) -> Result<Rows> {
        let mut rows = Rows::new();
        for table in Table::ALL {
            for ids in change.ids(table).chunks(ROUND) {
                let ids = ids.iter().map(|id| Bson::from(id.as_str())).collect();
                for document in self.documents.get(&self.namespace(table), ids).await? {
                    let Ok(id) = document.get_str("_id") else { continue };
                    match CountRow::read(&document) {
                        Some(row) => {
                            rows.insert((table, id.to_owned()), row);
                        }
                        None => {
                            tracing::warn!(
                                count = id,
                                "a damaged count is passed over; a recount makes it anew"
                            );
                            change.rows.remove(&(table, id.to_owned()));
                        }
                    }
                }
            }
        }
        self.add_left(change, &mut rows).await?;
        self.add_erased(change, &mut rows).await?;
        Ok(rows)
    }

    /// Adds the stored values of versions of which only the numbers are left: a follower that saw them whole
    /// has put these values, and did not come to the totals.
    async fn add_left(&self, change: &mut Change<'_>, rows: &mut Rows) -> Result<()> {
        let left: Vec<(ItemId, i64)> = change.left_of.iter().map(|(item, last)| (*item, *last)).collect();
        for some in left.chunks(ROUND) {
            let of_items = Test::In(some.iter().map(|(item, _)| item.bson()).collect());
            let filter = self
                .of_generation(change.generation())
                .and(Filter::Field(ITEM.into(), of_items))
                .and(Filter::gt("firstCv", int(change.after())));
            let mut found = self.documents.scan(&self.totals(), Scan { filter, ..Scan::default() });
            while let Some(document) = found.try_next().await? {
                let (Ok(id), Some(row)) = (document.get_str("_id"), CountRow::read(&document)) else {
                    continue;
                };
                // A later one is of rows to come.
                let is_of_these = row.item.and_then(|item| change.left_of.get(&item));
                if is_of_these.is_some_and(|last| row.first_cv <= *last) {
                    rows.insert((Table::Unique, id.to_owned()), row);
                    change.take_stored(id, &document);
                }
            }
        }
        Ok(())
    }

    /// Adds the stored values that only items had which are erased.
    async fn add_erased(&self, change: &mut Change<'_>, rows: &mut Rows) -> Result<()> {
        for erasure in change.erasures.clone() {
            let of_item = Filter::eq(ITEM, erasure.item.bson());
            let filter = self.of_generation(change.generation()).and(of_item);
            let mut found = self.documents.scan(&self.totals(), Scan { filter, ..Scan::default() });
            while let Some(document) = found.try_next().await? {
                if let (Ok(id), Some(row)) = (document.get_str("_id"), CountRow::read(&document)) {
                    rows.insert((Table::Unique, id.to_owned()), row);
                    change.erase_stored(id, &document, erasure);
                }
            }
        }
        Ok(())
    }

    /// Sees to it that nothing of what was erased is left in the files of the store.
    pub(super) async fn purge(&self) -> Result<()> {
        self.documents.purge(&self.totals().database).await
    }

    /// Puts the counts of a change. Those that are ahead of it already stay. Returns whether a value is erased.
    pub(super) async fn put_rows(&self, change: &Change<'_>, record: &Record, stored: &Rows) -> Result<bool> {
        let (mut batch, mut erased) = (Batch::new(), false);
        for (place, row) in &change.rows {
            let before = stored.get(place);
            // Also where a follower that came no further has put it: it may not have come to the files.
            erased |= before.is_some_and(|count| count.is_void && count.cv > record.cv);
            let Some(next) = CountRow::after(before, row) else { continue };
            erased |= next.is_void;
            let (table, id) = place;
            let document = next.stored(id, &row.key, &self.owner, record.generation, &record.rules);
            batch.push(&self.namespace(*table), Write::put(document, Guard::Newer { field: "cv".into() }));
            if batch.operations.len() >= ROUND {
                self.documents.apply(std::mem::take(&mut batch)).await?;
                self.env.fail.hit("counters.between_counts")?;
            }
        }
        if !batch.operations.is_empty() {
            self.documents.apply(batch).await?;
        }
        Ok(erased)
    }

    fn of_generation(&self, generation: ObjectId) -> Filter {
        Filter::eq("totals", self.owner.id.as_str()).and(Filter::eq("generation", generation))
    }

    /// The values of a property under a rule, the most frequent first.
    pub(super) fn most_frequent(
        &self,
        generation: ObjectId,
        rule: &str,
        property: &str,
        limit: u64,
    ) -> BoxStream<'static, Result<Document>> {
        let of_property = Filter::eq("rule", rule).and(Filter::eq("propertyName", property));
        let scan = Scan {
            filter: self
                .of_generation(generation)
                .and(of_property)
                .and(Filter::Field("occurrences".into(), Test::Gt(0.into()))),
            order: vec![("occurrences".into(), Direction::Descending), ("_id".into(), Direction::Ascending)],
            limit: Some(limit),
            ..Scan::default()
        };
        self.documents.scan(&self.totals(), scan)
    }

    /// The counts of a period from `oldest` on, in order.
    pub(super) fn of_period(
        &self,
        generation: ObjectId,
        period: Period,
        oldest: Timestamp,
    ) -> BoxStream<'static, Result<Document>> {
        let scan = Scan {
            filter: self
                .of_generation(generation)
                .and(Filter::Field("from".into(), Test::Gte(oldest.into()))),
            order: vec![("from".into(), Direction::Ascending), ("_id".into(), Direction::Ascending)],
            ..Scan::default()
        };
        self.documents.scan(&self.namespace(Table::Bucket(period)), scan)
    }

    /// Every count of a generation in one collection.
    pub(super) fn of_table(
        &self,
        generation: ObjectId,
        table: Table,
    ) -> BoxStream<'static, Result<Document>> {
        let scan = Scan { filter: self.of_generation(generation), ..Scan::default() };
        self.documents.scan(&self.namespace(table), scan)
    }

    /// Removes periods that are no longer kept.
    pub(super) async fn remove_old(
        &self,
        generation: ObjectId,
        period: Period,
        oldest: Timestamp,
    ) -> Result<()> {
        let filter =
            self.of_generation(generation).and(Filter::Field("from".into(), Test::Lt(oldest.into())));
        self.remove(&self.namespace(Table::Bucket(period)), filter, |_| true).await
    }

    /// Removes what is left of erased values, once no follower can be as far behind.
    pub(super) async fn remove_void(&self, generation: ObjectId) -> Result<()> {
        let before = self.documents.now().await?.plus_millis(-ABANDONED_MILLIS);
        let old = Filter::Field(VOID_AT.into(), Test::Lt(before.into()));
        self.remove(&self.totals(), self.of_generation(generation).and(old), |_| true).await
    }

    /// Removes the counts of generations that are nobody's any more: of one that was just replaced, and of
    /// recounts that never came to their end.
    pub(super) async fn sweep(&self, replaced: Option<ObjectId>) -> Result<()> {
        let Some(current) = self.load().await?.map(|record| record.generation) else { return Ok(()) };
        let before = self.documents.now().await?.plus_millis(-ABANDONED_MILLIS);
        let goes = move |document: &Document| {
            document.get_object_id("generation").is_ok_and(|of| {
                of != current
                    && (Some(of) == replaced || of.timestamp().timestamp_millis() < before.as_millis())
            })
        };
        for table in Table::ALL {
            let others = Filter::Field("generation".into(), Test::Ne(current.into()));
            let filter = Filter::eq("totals", self.owner.id.as_str()).and(others);
            self.remove(&self.namespace(table), filter, &goes).await?;
        }
        Ok(())
    }

    async fn remove(
        &self,
        namespace: &Namespace,
        filter: Filter,
        goes: impl Fn(&Document) -> bool,
    ) -> Result<()> {
        let scan = Scan { filter, ..Scan::default() };
        let mut found = self.documents.scan(namespace, scan).try_chunks(ROUND);
        while let Some(chunk) = found.next().await {
            let mut batch = Batch::new();
            for document in chunk.map_err(|error| error.1)?.iter().filter(|document| goes(document)) {
                if let Some(id) = document.get("_id") {
                    batch.push(namespace, Write::Delete { id: id.clone(), guard: Guard::Any });
                }
            }
            if !batch.operations.is_empty() {
                self.documents.apply(batch).await?;
            }
        }
        Ok(())
    }
}

/// When counts that are left over are certainly nobody's.
pub(super) fn sweep_after(now: Timestamp) -> Timestamp {
    now.plus_millis(ABANDONED_MILLIS + 3_600_000)
}
