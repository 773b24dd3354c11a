//! The mark of a copy: a collection that is restored to a bucket where objects of its name lie already.
//!
//! Its items have the identifiers of the original, whose database may be another one. No key tells whose an
//! object is then, so the search for objects that no version names leaves the bucket alone (`retention.objects`).

use futures::TryStreamExt as _;

use super::restore::Restorer;
use crate::Result;
use crate::objects::{PutOptions, keys};

impl Restorer {
    /// Marks the buckets in which something lies where objects are about to be put. Nothing of this restore may be
    /// there yet.
    pub(super) async fn mark_copy(&self) -> Result<()> {
        let names = &self.workers.index.names;
        let payloads = &self.workers.reader.payloads;
        let (prefix, mark) = (
            keys::collection_prefix(&names.collection)?,
            keys::copy(&names.collection, &names.head.database)?,
        );
        for name in payloads.bucket_names() {
            let bucket = payloads.bucket(name)?;
            if bucket.list(&prefix).try_next().await?.is_some() {
                bucket.put(&mark, bytes::Bytes::new(), PutOptions::default()).await?;
            }
        }
        Ok(())
    }
}
