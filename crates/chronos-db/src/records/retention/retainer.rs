//! Who rolls versions up and takes them out of the index.

use std::sync::Arc;

use crate::records::index::RecordIndex;
use crate::records::manifests::Manifests;
use crate::records::write::watermark::Watermark;
use crate::{Error, Result};

/// Rolls versions up and takes them out of the index.
pub(crate) struct Retainer {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) manifests: Arc<Manifests>,
}

impl Retainer {
    /// Whether anything may leave: none where nothing is bounded or versions are not kept.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` where it is bounded, and cannot be.
    pub(crate) fn is_bounded(&self) -> Result<bool> {
        let settings = &self.index.settings;
        if !settings.versioning {
            return Ok(false);
        }
        if !settings.rollup.enabled {
            return Err(Error::validation(
                "`rollup.enabled` is false, so every version stays in the index: nothing is rolled up or pruned",
            ));
        }
        // Said whether or not there are bounds: without object storage there is no place for manifests.
        self.manifests.bucket()?;
        Ok(settings.retention.is_bounded())
    }
}
