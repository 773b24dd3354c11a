//! Erasing an item that is not there yet: its creation waits in the fallback queue, or was given up.

use super::certificate::Certificate;
use super::finish::Finisher;
use crate::fallback::entry::Target;
use crate::fallback::queue::QueuedItem;
use crate::records::{
    Change, Collection, ErasureCounts, ErasureRecord, ItemId, Op, Row, WriteCall, WriteOptions, WriteOutcome,
};
use crate::{Chronos, Error, Result};

/// How the operations of an item are found: those alone that were queued for what this handle sees. That of a worker has
/// no route.
async fn queued_item(collection: &Collection, id: ItemId) -> Result<QueuedItem> {
    let target = collection.fallback.as_ref().and_then(|fallback| fallback.target.as_ref());
    Ok(QueuedItem {
        store: target.map(|Target { store, .. }| store.clone()),
        database: collection.database().to_owned(),
        collection: collection.name().to_owned(),
        item: id,
        scope: collection.upkeep_scope().await?.clone(),
    })
}

/// How many operations wait for an item, or were given up.
pub(super) async fn count(chronos: &Chronos, collection: &Collection, id: ItemId) -> Result<u64> {
    let Some(queues) = chronos.queues() else { return Ok(0) };
    let item = queued_item(collection, id).await?;
    let mut operations = 0;
    for queue in queues.near(chronos.config(), collection.database())? {
        operations += queue.count_queued(&item).await?;
    }
    Ok(operations)
}

/// Erases what waits for an item that is not there; none if nothing does.
///
/// # Errors
/// `LOCKED` if an operation is being carried out at this moment.
pub(super) async fn erase(
    chronos: &Chronos,
    collection: &Collection,
    id: ItemId,
    options: &WriteOptions,
) -> Result<Option<Certificate>> {
    let operations = count(chronos, collection, id).await?;
    if operations == 0 {
        return Ok(None);
    }
    let index = &collection.workers.index;
    let record = ErasureRecord {
        certificate: index.env.random.object_id(),
        tenant: collection.scope().await?.stamp().map(str::to_owned),
        collection: collection.name().to_owned(),
        item: Some(id),
        counts: ErasureCounts { operations, ..ErasureCounts::default() },
        is_counted: true,
        backups_due: Vec::new(),
        certified: None,
        again_at: None,
    };
    collection.workers.eraser.erasures.begin(&record).await?;
    index.env.fail.hit("erase.after_record_of_queued")?;
    let finisher = Finisher { chronos, collection };
    finish(&finisher, record, id, options).await.map(Some)
}

/// Goes on with such an erasure.
pub(super) async fn finish(
    finisher: &Finisher<'_>,
    record: ErasureRecord,
    id: ItemId,
    options: &WriteOptions,
) -> Result<Certificate> {
    let collection = finisher.collection;
    if let Some(queues) = finisher.chronos.queues() {
        let item = queued_item(collection, id).await?;
        for queue in queues.near(finisher.chronos.config(), collection.database())? {
            queue.discard(&item).await?;
        }
    }
    collection.workers.index.env.fail.hit("erase.after_discard")?;
    match erase_landed(collection, &record, id, options).await? {
        Some(erasure) => finisher.finish(&erasure, record.certificate, None).await,
        None => finisher.certify(record, id).await,
    }
}

/// If the creation took place all the same, in an attempt of a process that had lost its lease on it, the item is erased:
/// its ERASE row.
pub(super) async fn erase_landed(
    collection: &Collection,
    record: &ErasureRecord,
    id: ItemId,
    options: &WriteOptions,
) -> Result<Option<Row>> {
    let workers = &collection.workers;
    match workers.index.newest_row(id).await? {
        None => return Ok(None),
        Some(row) if row.op == Op::Erase => return Ok(Some(row)),
        Some(_) => {}
    }
    let options = &WriteOptions { certificate: Some(record.certificate), ..options.clone() };
    let scope = collection.upkeep_scope().await?;
    let call = WriteCall { id, change: &Change::Delete, options, scope, lock: None };
    match workers.writer.write(call).await? {
        WriteOutcome::Committed(committed) => Ok(Some(committed.row)),
        WriteOutcome::Unchanged(_) => Err(Error::database("an erasure always changes something")),
    }
}
