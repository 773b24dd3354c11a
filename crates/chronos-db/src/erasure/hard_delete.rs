//! The administrators' way to erase an item, which a configuration has to allow.

use super::certificate::Certificate;
use super::erase::{count, erase, erase_options, named};
use crate::action::Action;
use crate::records::{Collection, ErasureCounts, ItemId, WriteOptions};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Json, Result, Timestamp, json};

impl Collection {
    /// Erases an item as [`erase`](Self::erase) does, where the configuration says `hardDeleteEnabled`, and tells
    /// which objects went.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let config = Config::embedded_builder(dir.path()).hard_delete(true).build()?;
    /// let chronos = Chronos::open(config)?;
    /// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// let id = users.create(chronos_db::json!({"email": "ada@example.org"})).await?.id;
    /// let deleted = users.hard_delete(&id).await?;
    /// assert_eq!((deleted.versions, deleted.objects.len()), (1, 1));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration does not allow it; else as [`erase`](Self::erase).
    pub fn hard_delete(&self, id: &ItemId) -> HardDelete {
        HardDelete { collection: self.clone(), id: *id, options: WriteOptions::default(), dry_run: false }
    }
}

/// Erases an item; see [`Collection::hard_delete`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct HardDelete {
    collection: Collection,
    id: ItemId,
    options: WriteOptions,
    dry_run: bool,
}

/// What a hard delete did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HardDeleted {
    /// The item.
    pub id: ItemId,
    /// Versions that went.
    pub versions: u64,
    /// The keys of the objects that went.
    pub objects: Vec<String>,
    /// The certificate; none for a dry run.
    pub certificate: Option<Certificate>,
}

impl HardDeleted {
    /// Returns `{id, versionsDeleted, s3ObjectsDeleted, deletedS3Keys, dryRun, deletedAt?, certificate?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = json!({
            "id": self.id.to_string(),
            "versionsDeleted": self.versions,
            "s3ObjectsDeleted": self.objects.len(),
            "deletedS3Keys": self.objects,
            "dryRun": self.certificate.is_none(),
        });
        if let Some(certificate) = &self.certificate {
            out["deletedAt"] = certificate.erased_at.to_string().into();
            out["certificate"] = certificate.to_json();
        }
        out
    }

    /// When it was done; none for a dry run.
    #[must_use]
    pub fn deleted_at(&self) -> Option<Timestamp> {
        self.certificate.as_ref().map(|certificate| certificate.erased_at)
    }
}

impl HardDelete {
    erase_options!();

    /// Only tells what would go.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

impl Action for HardDelete {
    type Output = HardDeleted;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::HardDelete))
    }

    async fn run(self) -> Result<HardDeleted> {
        let Self { collection, id, options, dry_run } = self;
        let work = async {
            if !collection.workers.index.settings.hard_delete {
                return Err(Error::validation(
                    "the configuration does not allow hard deletes: `hardDeleteEnabled` is not set",
                ));
            }
            let ErasureCounts { versions, .. } = count(&collection, id).await?;
            let objects = collection.workers.eraser.objects(id).await?;
            let objects = objects.into_iter().map(|(_, key)| key).collect();
            let certificate = if dry_run { None } else { Some(erase(&collection, id, &options).await?) };
            let versions = certificate.as_ref().map_or(versions, |certificate| certificate.counts.versions);
            Ok(HardDeleted { id, versions, objects, certificate })
        };
        work.await.map_err(|error| named(error, &collection, id))
    }
}

awaitable!(HardDelete);
