//! Erasing one item.

use bson::Document;
use futures::{StreamExt as _, TryStreamExt as _};

use super::certificate::Certificate;
use super::finish::Finisher;
use super::queued;
use crate::action::Action;
use crate::documents::raw_bson;
use crate::records::{
    Change, Collection, ErasureCounts, ItemId, Missing, Op, Row, WriteCall, WriteOptions, WriteOutcome,
};
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Error, ErrorKind, Result};

/// Index entries that are held at once.
const MAX_ENTRIES: usize = 256;

impl Collection {
    /// Erases an item for good, whether it is deleted or not, and whatever `logicalDelete` says: its versions, its
    /// objects, what is indexed of it, and what names it in the fallback queue and in messages. Readers do not find
    /// it from the moment at which its ERASE row is committed, writers neither; when the action returns, its bytes
    /// are nowhere any more. Only the numbers of its versions stay, and who erased it when and why.
    ///
    /// An item that is yet to be created, or that could not be, is erased from the fallback queue and its spool.
    ///
    /// Returns a certificate, which is kept ([`certificates`](Self::certificates)). If it is stopped, a worker or
    /// the same call again goes on; there is one certificate in any case. After a day everything is looked
    /// at again, for what was under way.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// let id = users.create(chronos_db::json!({"email": "ada@example.org"})).await?.id;
    /// assert_eq!(users.erase(&id).dry_run().await?.versions, 1); // only counts
    ///
    /// let certificate = users.erase(&id).actor("dpo").reason("ticket 4711").await?;
    /// assert_eq!(certificate.counts.versions, 1);
    /// assert!(certificate.is_of(users.database(), &id)?);
    /// assert!(users.get(&id).version(0).await?.is_none());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item, or a delete erased it; `LOCKED` if another process holds its lock for
    /// longer than a write waits (5 s), or is creating it from the fallback queue at this moment; `TXN_ERROR` or `STORAGE_ERROR` if a store fails, also after 8 s of tries
    /// for what is left when the item is absent already.
    pub fn erase(&self, id: &ItemId) -> Erase {
        Erase { collection: self.clone(), id: *id, options: WriteOptions::default() }
    }
}

/// Erases an item; see [`Collection::erase`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Erase {
    pub(super) collection: Collection,
    pub(super) id: ItemId,
    pub(super) options: WriteOptions,
}

macro_rules! erase_options {
    () => {
        /// Records who erases it, in its ERASE row.
        pub fn actor(mut self, actor: impl Into<String>) -> Self {
            self.options.actor = Some(actor.into());
            self
        }

        /// Records why, in its ERASE row: name a rule or a ticket, no person.
        pub fn reason(mut self, reason: impl Into<String>) -> Self {
            self.options.reason = Some(reason.into());
            self
        }
    };
}
pub(super) use erase_options;

impl Erase {
    erase_options!();

    /// Only counts what would be erased.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item; `TXN_ERROR` or `STORAGE_ERROR` if a store fails.
    pub async fn dry_run(self) -> Result<ErasureCounts> {
        let Self { collection, id, .. } = &self;
        count(collection, *id).await.map_err(|error| named(error, collection, *id))
    }
}

impl Action for Erase {
    type Output = Certificate;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Erase))
    }

    async fn run(self) -> Result<Certificate> {
        let Self { collection, id, options } = &self;
        erase(collection, *id, options).await.map_err(|error| named(error, collection, *id))
    }
}

awaitable!(Erase);

pub(super) fn named(error: Error, collection: &Collection, id: ItemId) -> Error {
    error.during("erase").in_collection(collection.name()).on_item(id)
}

/// What there is of an item that is not erased.
pub(super) async fn count(collection: &Collection, id: ItemId) -> Result<ErasureCounts> {
    let chronos = Chronos::behind(collection)?;
    let scope = collection.scope().await?;
    let workers = &collection.workers;
    let head = workers.index.head_or_row(id).await?;
    let Some(head) = head.filter(|head| !head.erased && scope.sees(head.meta.tenant.as_deref())) else {
        let operations = queued::count(&chronos, collection, id).await?;
        if operations == 0 {
            return Err(Error::not_found("there is no such item"));
        }
        return Ok(ErasureCounts { operations, ..ErasureCounts::default() });
    };
    let mut counts = workers.eraser.count(id, head.ov + 1).await?;
    let finisher = Finisher { chronos: &chronos, collection };
    let beside = finisher.beside(head.meta.tenant.clone(), id).await?;
    (counts.messages, counts.operations) = beside.count().await?;
    Ok(counts)
}

pub(super) async fn erase(
    collection: &Collection,
    id: ItemId,
    options: &WriteOptions,
) -> Result<Certificate> {
    let chronos = Chronos::behind(collection)?;
    let scope = collection.scope().await?;
    let entries = entries_of(collection, id).await?;
    let certificate = collection.workers.index.env.random.object_id();
    let options = &WriteOptions { certificate: Some(certificate), ..options.clone() };
    let call = WriteCall { id, change: &Change::Delete, options, scope, lock: None };
    let erasure = match collection.workers.writer.write(call).await {
        Ok(WriteOutcome::Committed(committed)) => committed.row,
        Ok(WriteOutcome::Unchanged(_)) => return Err(Error::database("an erasure always changes something")),
        // Another call may have been here, and have died; or the item is yet to be created.
        Err(error) if error.kind() == ErrorKind::NotFound => match begun(collection, id).await? {
            Some(erasure) => erasure,
            None => return queued::erase(&chronos, collection, id, options).await?.ok_or(error),
        },
        Err(error) => return Err(error),
    };
    let certificate = erasure.certificate.unwrap_or(certificate);
    let entries = entries.of_all(erasure.ov);
    Finisher { chronos: &chronos, collection }.finish(&erasure, certificate, entries).await
}

/// What the rows of an item in the index say of its values.
#[derive(Default)]
struct Entries {
    rows: i64,
    /// Of those rows that have a document.
    entries: Vec<Document>,
    /// Something had no room in the index.
    lacks_values: bool,
}

impl Entries {
    /// The entries of all `ov` versions; none if it is not known what some of them had.
    fn of_all(&self, ov: i64) -> Option<&[Document]> {
        (self.rows == ov && !self.lacks_values).then_some(self.entries.as_slice())
    }
}

/// The index entries of the versions of an item, as far as they are in the index and not too many.
async fn entries_of(collection: &Collection, id: ItemId) -> Result<Entries> {
    let mut rows = collection.workers.index.rows_of(id).take(MAX_ENTRIES);
    let mut found = Entries::default();
    while let Some(row) = rows.try_next().await? {
        found.rows += 1;
        if !row.op.is_bare() {
            found.lacks_values |= row.meta.missing != Missing::None;
            found.entries.push(raw_bson::decode(&row.meta.indexed)?);
        }
    }
    Ok(found)
}

/// The ERASE row of an item whose erasure is certified, or will be.
async fn begun(collection: &Collection, id: ItemId) -> Result<Option<Row>> {
    let scope = collection.scope().await?;
    let newest = collection.workers.index.newest_row(id).await?;
    Ok(newest.filter(|row| {
        row.op == Op::Erase && row.certificate.is_some() && scope.sees(row.meta.tenant.as_deref())
    }))
}
