//! Building a collection from a backup.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::backup::catalog::{self, Chain};
use crate::backup::format::Subject;
use crate::backup::location::BackupLocation;
use crate::backup::restore::{Progress, Restorer};
use crate::backup::target::Target;
use crate::objects::keys::BACKUPS;
use crate::records::{Collection, VersionSelector};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Json, Result, Timestamp, json};

/// How long erasures have that a backup had not taken in. What is left then is done by the next flush.
const ERASING: Duration = Duration::from_secs(60);

impl Collection {
    /// Builds this collection from a backup: items, versions, numbers, times, reasons, lineage and bytes are those
    /// of the collection that was backed up, on whatever stores. Counters are counted anew. Nobody writes to it until
    /// that is done; if it is stopped, running it again goes on.
    ///
    /// What is restored is what the same handle backed up, unless [`of`](RestoreBackup::of) names another collection.
    /// See [`backup`](Self::backup).
    ///
    /// Where records have large properties that are stored as objects and the database has another name, the
    /// references in these documents name the objects of the copy; every other byte is the same.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no backup; `VALIDATION_ERROR` if there is something else in the collection, or of the
    /// two collections only one keeps versions;
    /// `STORAGE_ERROR` that names the file if the backup is damaged; `STORAGE_ERROR` or `TXN_ERROR` if a store fails.
    pub fn restore_backup(&self) -> RestoreBackup {
        RestoreBackup {
            target: self.clone(),
            source: self.clone(),
            folder: None,
            database: None,
            which: VersionSelector::Latest,
        }
    }
}

/// Builds a collection from a backup; see [`Collection::restore_backup`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RestoreBackup {
    target: Collection,
    source: Collection,
    folder: Option<PathBuf>,
    database: Option<String>,
    which: VersionSelector,
}

impl RestoreBackup {
    /// Restores what was backed up of this collection, which need not be there any more.
    pub fn of(mut self, source: &Collection) -> Self {
        self.source = source.clone();
        self
    }

    /// Reads the backup in this folder instead of the backups bucket. If there is none of the database that the source
    /// is in, one of a collection of that name in another database is taken, as long as there is only one.
    pub fn from_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Names the database that was backed up, where a folder has backups of several.
    pub fn from_database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// Restores to this version of the collection (`cv`).
    pub fn to_cv(mut self, cv: i64) -> Self {
        self.which = VersionSelector::Cv(cv);
        self
    }

    /// Restores to this time: the versions that are not later.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = VersionSelector::At(at);
        self
    }

    async fn find(&self, location: &BackupLocation, own: Subject) -> Result<(Subject, Chain)> {
        if self.database.is_none()
            && let Some(chain) = catalog::newest(location, &own).await?
        {
            return Ok((own, chain));
        }
        let mut subjects: Vec<Subject> = Vec::new();
        // What lies in a bucket may be of others.
        if self.folder.is_some() {
            let chains = catalog::chains(location, &format!("{BACKUPS}/")).await?;
            let found =
                chains.into_iter().filter_map(|(chain, _)| Some(chain.segments.first()?.subject.clone()));
            subjects.extend(found.filter(|subject| {
                subject.collection == own.collection
                    && self.database.as_ref().is_none_or(|database| *database == subject.database)
            }));
            subjects.sort();
            subjects.dedup();
        }
        match <[Subject; 1]>::try_from(subjects) {
            Ok([subject]) => {
                let chain = catalog::newest(location, &subject).await?;
                chain.map(|chain| (subject, chain)).ok_or_else(|| none_of(&own))
            }
            Err(subjects) if subjects.is_empty() => Err(none_of(&own)),
            Err(subjects) => {
                let names: Vec<String> = subjects
                    .iter()
                    .map(|subject| format!("`{}` ({})", subject.database, subject.whose))
                    .collect();
                Err(Error::validation(format!(
                    "there are backups of `{}` of several databases: {}; name one",
                    own.collection,
                    names.join(", ")
                )))
            }
        }
    }

    async fn restore(&self) -> Result<RestoredBackup> {
        let (target, source) = (&self.target, &self.source);
        let (scope, source_scope) = (target.scope().await?, source.scope().await?);
        let workers = &target.workers;
        let location = BackupLocation::of(self.folder.as_deref(), &source.workers.reader.payloads)?;
        let own = Subject::new(source.database(), source.name(), source_scope);
        let (subject, chain) = self.find(&location, own).await?;
        let restorer = Restorer {
            workers: Arc::clone(workers),
            target: Target {
                source: subject.clone(),
                subject: Subject::new(target.database(), target.name(), scope),
                scope: scope.clone(),
                buckets: workers.reader.payloads.buckets.clone(),
                says_tenant: workers.index.settings.says_tenant,
            },
            location,
            chain,
            which: self.which,
        };
        let progress = restorer.run().await?;
        if !progress.was_complete {
            // Of erasures that the backup had not taken in.
            workers.flush(ERASING, false, scope).await?;
            if workers.index.settings.versioning {
                target.counters().recount().await?;
            }
            restorer.finish().await?;
        }
        Ok(RestoredBackup::new(target, subject, restorer.chain.id(), &progress))
    }
}

fn none_of(subject: &Subject) -> Error {
    Error::not_found(format!(
        "there is no backup of the collection `{}` of database `{}`",
        subject.collection, subject.database
    ))
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredBackup {
    /// The database that it was restored to.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// The database and the collection that were backed up.
    pub from_database: String,
    /// See [`from_database`](Self::from_database).
    pub from_collection: String,
    /// Which backup of that collection.
    pub backup: String,
    /// The last version of the collection that is there now.
    pub cv: i64,
    /// Versions of items that were written.
    pub versions: u64,
    /// Rows that were written: versions, erasures and numbers that no version took.
    pub rows: u64,
    /// Versions that were damaged when they were backed up, and are now.
    pub damaged: u64,
    /// It was restored before, and nothing was left to do.
    pub was_complete: bool,
}

impl RestoredBackup {
    fn new(target: &Collection, source: Subject, backup: &str, progress: &Progress) -> Self {
        Self {
            database: target.database().to_owned(),
            collection: target.name().to_owned(),
            from_database: source.database,
            from_collection: source.collection,
            backup: backup.to_owned(),
            cv: progress.cv,
            versions: progress.versions,
            rows: progress.rows,
            damaged: progress.damaged,
            was_complete: progress.was_complete,
        }
    }

    /// Returns `{database, collection, from: {database, collection}, backup, cv, versions, rows, damaged,
    /// wasComplete}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "database": self.database,
            "collection": self.collection,
            "from": { "database": self.from_database, "collection": self.from_collection },
            "backup": self.backup,
            "cv": self.cv,
            "versions": self.versions,
            "rows": self.rows,
            "damaged": self.damaged,
            "wasComplete": self.was_complete,
        })
    }
}

impl Action for RestoreBackup {
    type Output = RestoredBackup;

    fn observed(&self) -> Option<Observed> {
        Some(self.target.observed(Operation::RestoreBackup))
    }

    async fn run(self) -> Result<RestoredBackup> {
        let name = self.target.name().to_owned();
        self.restore().await.map_err(|error| error.during("restore backup").in_collection(&name))
    }
}

awaitable!(RestoreBackup);
