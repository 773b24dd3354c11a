//! Whether manifests are what their entries say.

use super::find::{damaged, missing};
use super::root::Manifests;
use crate::records::document::payload::checksum;
use crate::records::index::scope::Scope;
use crate::{ErrorKind, Result};

/// A manifest that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedManifest {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) message: String,
}

impl Manifests {
    /// Reads every manifest in use that `scope` may see, whole, and returns those that are missing or not
    /// what was stored.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails.
    pub(crate) async fn damaged(&self, scope: &Scope) -> Result<Vec<DamagedManifest>> {
        let mut wrong = Vec::new();
        let live = self.entries(scope).await?;
        for entry in &live.entries {
            let found = match self.payloads.bucket(&entry.bucket)?.get(&entry.key).await {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                found => found?,
            };
            let error = match found {
                None => missing(entry),
                Some(bytes) if checksum(&bytes) == entry.sha256 => continue,
                Some(_) => damaged(entry, "its checksum is not the one that was recorded"),
            };
            if self.switch().await?.in_use.iter().all(|one| one.id != entry.id) {
                continue;
            }
            wrong.push(DamagedManifest {
                bucket: entry.bucket.clone(),
                key: entry.key.clone(),
                message: error.message().to_owned(),
            });
        }
        Ok(wrong)
    }
}
