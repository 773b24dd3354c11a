//! Going on with erasures that were begun, and looking at those that are over for the second time.

use futures::TryStreamExt as _;

use super::finish::Finisher;
use super::queued;
use crate::records::{Collection, ErasureRecord, ItemId, Op, WriteOptions};
use crate::{Chronos, Error, ErrorKind, Result};

/// What became of the erasures that were not over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resumed {
    pub(crate) finished: u64,
    /// Some wait for an operation that another process, or this one, is carrying out.
    pub(crate) is_some_waiting: bool,
}

/// Goes on with every erasure of a collection that is not over, as far as its handle sees them. One that fails
/// holds up no other.
///
/// # Errors
/// The first error, after all were tried.
pub(crate) async fn resume(chronos: &Chronos, collection: &Collection) -> Result<Resumed> {
    let index = &collection.workers.index;
    let scope = collection.upkeep_scope().await?;
    let mut open = collection.workers.eraser.erasures.open(|filter| scope.narrow(filter));
    let (mut resumed, mut failed) = (Resumed::default(), None);
    let mut now = None;
    while let Some(stored) = open.try_next().await? {
        let now = match now {
            Some(now) => now,
            None => *now.insert(index.documents.now().await?),
        };
        let done = async {
            let record = ErasureRecord::read(&stored)?;
            let Some(id) = record.item else { return Ok(false) };
            let finisher = Finisher { chronos, collection };
            match record.again_at {
                None => go_on(&finisher, &record, id).await,
                Some(at) if at <= now => look_again(&finisher, record, id).await.map(|()| false),
                Some(_) => Ok(false),
            }
        };
        match done.await {
            Ok(true) => resumed.finished += 1,
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::Locked => resumed.is_some_waiting = true,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(resumed), Err)
}

async fn look_again(finisher: &Finisher<'_>, record: ErasureRecord, id: ItemId) -> Result<()> {
    // An item that was not there when what waited for it was erased.
    if record.counts.versions == 0 {
        let options = WriteOptions::default();
        let collection = finisher.collection;
        if let Some(erasure) = queued::erase_landed(collection, &record, id, &options).await? {
            collection.workers.eraser.erase(&erasure).await?;
        }
    }
    finisher.close(record, id).await
}

async fn go_on(finisher: &Finisher<'_>, record: &ErasureRecord, id: ItemId) -> Result<bool> {
    let newest = finisher.collection.workers.index.newest_row(id).await?;
    let certificate = record.certificate;
    let erasure = newest.filter(|row| row.op == Op::Erase && row.certificate == Some(certificate));
    match erasure {
        Some(erasure) => finisher.finish(&erasure, certificate, None).await?,
        // There was no item, only operations that waited for it.
        None if record.counts.versions == 0 => {
            queued::finish(finisher, record.clone(), id, &WriteOptions::default()).await?
        }
        None => {
            let message = format!("the ERASE row of the erasure {certificate} is gone");
            return Err(Error::database(message).on_item(id));
        }
    };
    Ok(true)
}
