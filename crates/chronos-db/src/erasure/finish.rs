//! From the ERASE row to the certificate.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bson::Document;
use bson::oid::ObjectId;
use futures::FutureExt as _;

use super::beside::Beside;
use super::certificate::Certificate;
use crate::backup::take_out;
use crate::records::{AGAIN_MILLIS, Collection, ErasureRecord, ItemId, Row};
use crate::{Chronos, Error, Result};

/// The waits between tries, while a reader holds the embedded store or a storage is away: 8 s in all.
const WAITS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(1))
    .with_max_times(12);

/// Takes away what an erasure left, and certifies it.
pub(super) struct Finisher<'a> {
    pub(super) chronos: &'a Chronos,
    pub(super) collection: &'a Collection,
}

impl Finisher<'_> {
    /// Finishes the erasure of an ERASE row. If it is finished, returns its certificate.
    ///
    /// `entries` are the index entries of all versions that the item had, as far as they are known.
    pub(super) async fn finish(
        &self,
        erasure: &Row,
        certificate: ObjectId,
        entries: Option<&[Document]>,
    ) -> Result<Certificate> {
        let clock = Arc::clone(&self.collection.workers.index.env.clock);
        // In boxes: else the compiler does not see that they may be sent.
        let attempt = || self.attempt(erasure, certificate, entries).boxed();
        attempt.retry(WAITS).sleep(move |wait| clock.sleep(wait)).when(Error::is_retryable).boxed().await
    }

    async fn attempt(
        &self,
        erasure: &Row,
        certificate: ObjectId,
        entries: Option<&[Document]>,
    ) -> Result<Certificate> {
        let index = &self.collection.workers.index;
        let known = self.record(certificate).await?;
        if let Some(done) = known.as_ref().and_then(Certificate::of) {
            return Ok(done);
        }
        self.collection.workers.eraser.erase(erasure).await?;
        let record = self.record(certificate).await?;
        let mut record = record.ok_or_else(|| lost(certificate))?;
        let beside = self.beside(record.tenant.clone(), erasure.id).await?;
        if !record.is_counted {
            (record.counts.messages, record.counts.operations) = beside.count().await?;
            record.is_counted = true;
            self.collection.workers.eraser.erasures.count(&record).await?;
            // What another process counted holds.
            record = self.record(certificate).await?.ok_or_else(|| lost(certificate))?;
            index.env.fail.hit("erase.after_count_beside")?;
        }
        beside.remove().await?;
        index.env.fail.hit("erase.after_beside")?;
        let scope = self.collection.upkeep_scope().await?;
        record.backups_due = take_out(&self.collection.workers, scope, erasure.id).await?.due;
        index.env.fail.hit("erase.after_backups")?;
        match entries {
            Some(entries) => self.collection.forget_results(entries).await?,
            None => self.collection.forget_all_results().await?,
        };
        index.env.fail.hit("erase.after_results")?;
        self.certify(record, erasure.id).await
    }

    pub(super) async fn certify(&self, mut record: ErasureRecord, id: ItemId) -> Result<Certificate> {
        let workers = &self.collection.workers;
        workers.index.documents.scrub(self.collection.database()).await?;
        let now = workers.index.documents.now().await?;
        record.certified = Some(Certificate::certify(&record, self.collection.database(), id, now));
        record.again_at = Some(now.plus_millis(AGAIN_MILLIS));
        if !workers.eraser.erasures.certify(&record).await? {
            let certified = self.record(record.certificate).await?;
            record = certified.ok_or_else(|| lost(record.certificate))?;
        }
        workers.index.env.fail.hit("erase.after_certificate")?;
        Certificate::of(&record).ok_or_else(|| lost(record.certificate))
    }

    /// Looks at everything outside of the records for the second time, and forgets which item it was.
    pub(super) async fn close(&self, record: ErasureRecord, id: ItemId) -> Result<()> {
        self.beside(record.tenant.clone(), id).await?.remove().await?;
        let scope = self.collection.upkeep_scope().await?;
        take_out(&self.collection.workers, scope, id).await?;
        self.collection.workers.eraser.erasures.close(record).await
    }

    /// What of the item lies outside of its records.
    pub(super) async fn beside(&self, tenant: Option<String>, id: ItemId) -> Result<Beside> {
        Beside::of(self.chronos, self.collection, id, tenant).await
    }

    async fn record(&self, certificate: ObjectId) -> Result<Option<ErasureRecord>> {
        self.collection.workers.eraser.erasures.get(certificate).await
    }
}

fn lost(certificate: ObjectId) -> Error {
    Error::database(format!("the record {certificate} of an erasure that was begun is gone"))
}
