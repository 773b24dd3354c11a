//! Backing a collection up.

use std::path::PathBuf;

use crate::action::Action;
use crate::backup::format::Subject;
use crate::backup::location::BackupLocation;
use crate::backup::source::Source;
use crate::backup::writer::{Writer, Wrote};
use crate::records::Collection;
use crate::telemetry::{Observed, Operation};
use crate::{Error, Json, Result, json};

impl Collection {
    /// Backs the collection up: what came since its last backup in the same place, up to
    /// [`stable_cv`](Self::stable_cv), while writes go on. One that is stopped is continued by the next; of two at
    /// once each writes a part. Of a collection that keeps no versions each backup is whole, and has the latest state
    /// of each item.
    ///
    /// Backups go to the backups bucket of the entry, or to a folder. They are encrypted as little as the records are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config, json};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// users.create(json!({"email": "ada@example.org"})).await?;
    /// assert_eq!(users.backup().await?.versions, 1);
    /// users.create(json!({"email": "bob@example.org"})).await?;
    /// let second = users.backup().await?;
    /// assert_eq!((second.from, second.cv, second.versions), (0, 1, 1));
    ///
    /// let copy = chronos.with(Route::runtime().tenant("default").collection("copy"))?;
    /// copy.restore_backup().of(&users).await?;
    /// assert_eq!(copy.list().await?.items.len(), 2);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there is neither a bucket nor a folder;
    /// `STORAGE_ERROR` or `TXN_ERROR` if a store fails, or the backup that it continues is damaged. Versions whose
    /// payload is missing or damaged are counted, and no error.
    pub fn backup(&self) -> BackUp {
        BackUp { collection: self.clone(), folder: None }
    }
}

/// Backs a collection up; see [`Collection::backup`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct BackUp {
    collection: Collection,
    folder: Option<PathBuf>,
}

impl BackUp {
    /// Backs up to this folder instead of the backups bucket. An erasure does not reach it: it names the folder, and
    /// the next backup there takes the item out.
    pub fn to_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }
}

/// What a backup wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// Which backup of the collection it continues.
    pub backup: String,
    /// The version of the collection up to which it was backed up before; −1 if it was not.
    pub from: i64,
    /// The version of the collection up to which it is backed up now; −1 if the collection is empty.
    pub cv: i64,
    /// Versions of items that were written.
    pub versions: u64,
    /// Rows that were written: versions, erasures and numbers that no version took.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Versions whose payload is missing or damaged.
    pub damaged: u64,
    /// What is wrong with the first hundred of these.
    pub damage: Vec<String>,
}

impl BackedUp {
    fn new(collection: &Collection, wrote: Wrote) -> Self {
        Self {
            database: collection.database().to_owned(),
            collection: collection.name().to_owned(),
            backup: wrote.chain,
            from: wrote.from,
            cv: wrote.to,
            versions: wrote.versions,
            rows: wrote.rows,
            files: wrote.members,
            bytes: wrote.bytes,
            damaged: wrote.damaged,
            damage: wrote.damage,
        }
    }

    /// Returns `{database, collection, backup, from, cv, versions, rows, files, bytes, damaged, damage?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = json!({
            "database": self.database,
            "collection": self.collection,
            "backup": self.backup,
            "from": self.from,
            "cv": self.cv,
            "versions": self.versions,
            "rows": self.rows,
            "files": self.files,
            "bytes": self.bytes,
            "damaged": self.damaged,
        });
        if !self.damage.is_empty() {
            out["damage"] = json!(self.damage);
        }
        out
    }
}

impl Action for BackUp {
    type Output = BackedUp;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::BackUp))
    }

    async fn run(self) -> Result<BackedUp> {
        let Self { collection, folder } = self;
        let named = |error: Error| error.during("backup").in_collection(collection.name());
        let work = async {
            let (workers, scope) = (&collection.workers, collection.scope().await?);
            let payloads = workers.reader.payloads.clone();
            let writer = Writer {
                location: BackupLocation::of(folder.as_deref(), &payloads)?,
                subject: Subject::new(collection.database(), collection.name(), scope),
                source: Source {
                    index: workers.index.clone(),
                    payloads,
                    versions: workers.versions.clone(),
                    scope: scope.clone(),
                },
                watermark: &workers.watermark,
            };
            match workers.index.settings.versioning {
                true => writer.log().await,
                false => writer.state(&workers.reader).await,
            }
        };
        Ok(BackedUp::new(&collection, work.await.map_err(named)?))
    }
}

awaitable!(BackUp);
