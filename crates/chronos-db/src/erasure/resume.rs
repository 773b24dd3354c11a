//! Going on with erasures that were begun, and looking at those that are over for the second time.

use futures::TryStreamExt as _;

use super::finish::Finisher;
use crate::records::{Collection, ErasureRecord, ItemId, Op};
use crate::{Chronos, Error, Result};

/// Goes on with every erasure of a collection that is not over, as far as its handle sees them. One that fails
/// holds up no other. Returns how many were finished.
///
/// # Errors
/// The first error, after all were tried.
pub(crate) async fn resume(chronos: &Chronos, collection: &Collection) -> Result<u64> {
    let index = &collection.workers.index;
    let scope = collection.upkeep_scope().await?;
    let mut open = collection.workers.eraser.erasures.open(|filter| scope.narrow(filter));
    let (mut finished, mut failed) = (0, None);
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
                Some(at) if at <= now => finisher.close(record, id).await.map(|()| false),
                Some(_) => Ok(false),
            }
        };
        match done.await {
            Ok(true) => finished += 1,
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(finished), Err)
}

async fn go_on(finisher: &Finisher<'_>, record: &ErasureRecord, id: ItemId) -> Result<bool> {
    let newest = finisher.collection.workers.index.newest_row(id).await?;
    let erasure = newest.filter(|row| row.op == Op::Erase && row.certificate == Some(record.certificate));
    let erasure = erasure.ok_or_else(|| {
        let message = format!("the ERASE row of the erasure {} is gone", record.certificate);
        Error::database(message).on_item(id)
    })?;
    finisher.finish(&erasure, record.certificate, None).await.map(|_| true)
}
