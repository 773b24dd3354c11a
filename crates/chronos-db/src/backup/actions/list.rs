//! Which backups there are, and whether they are sound.

use std::path::PathBuf;

use crate::action::Action;
use crate::backup::check::{BackupInfo, look};
use crate::backup::format::Subject;
use crate::backup::location::BackupLocation;
use crate::objects::keys::BACKUPS;
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Error, Result, Route};

impl Chronos {
    /// Returns the backups of what a route leads to, one for each collection that was backed up: of the collection
    /// that it names, or of all in the database.
    ///
    /// # Errors
    /// As [`with`](Self::with); `VALIDATION_ERROR` if there is neither a bucket nor a folder; `STORAGE_ERROR` if
    /// the storage fails.
    pub fn backups(&self, route: Route) -> ListBackups {
        ListBackups { of: Wanted { chronos: self.clone(), route, folder: None } }
    }

    /// Reads every file of the backups that [`backups`](Self::backups) lists, and says what is wrong.
    ///
    /// # Errors
    /// As `backups`; what is damaged is in [`BackupInfo::problems`], and not an error.
    pub fn verify_backups(&self, route: Route) -> VerifyBackups {
        VerifyBackups { of: Wanted { chronos: self.clone(), route, folder: None } }
    }
}

/// Lists backups; see [`Chronos::backups`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListBackups {
    of: Wanted,
}

/// Verifies backups; see [`Chronos::verify_backups`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct VerifyBackups {
    of: Wanted,
}

#[derive(Clone, Debug)]
struct Wanted {
    chronos: Chronos,
    route: Route,
    folder: Option<PathBuf>,
}

impl ListBackups {
    /// Lists what is in this folder, of every database and tenant, instead of the backups bucket.
    pub fn from_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.of.folder = Some(folder.into());
        self
    }
}

impl VerifyBackups {
    /// Verifies what is in this folder, of every database and tenant, instead of the backups bucket.
    pub fn from_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.of.folder = Some(folder.into());
        self
    }
}

impl Wanted {
    async fn look(self, whole: bool) -> Result<Vec<BackupInfo>> {
        let Self { chronos, route, folder } = self;
        let named = route.collection.clone();
        let is_named = |subject: &Subject| named.as_ref().is_none_or(|named| *named == subject.collection);
        let prefix = format!("{BACKUPS}/");
        if let Some(folder) = folder {
            return look(&BackupLocation::folder(&folder)?, &prefix, is_named, whole).await;
        }
        // The name makes no difference to where the bucket is.
        let collection = chronos.with(match &named {
            Some(_) => route,
            None => route.collection("any"),
        })?;
        let location = BackupLocation::of(None, &collection.workers.reader.payloads)?;
        let own = Subject::new(collection.database(), collection.name(), collection.scope().await?);
        let is_own = |subject: &Subject| {
            subject.database == own.database && subject.whose == own.whose && is_named(subject)
        };
        look(&location, &prefix, is_own, whole).await
    }
}

impl Action for ListBackups {
    type Output = Vec<BackupInfo>;

    fn observed(&self) -> Option<Observed> {
        Some(self.of.chronos.observed(Operation::ListBackups))
    }

    async fn run(self) -> Result<Vec<BackupInfo>> {
        self.of.look(false).await.map_err(|error: Error| error.during("list backups"))
    }
}

impl Action for VerifyBackups {
    type Output = Vec<BackupInfo>;

    fn observed(&self) -> Option<Observed> {
        Some(self.of.chronos.observed(Operation::VerifyBackups))
    }

    async fn run(self) -> Result<Vec<BackupInfo>> {
        self.of.look(true).await.map_err(|error: Error| error.during("verify backups"))
    }
}

awaitable!(ListBackups);
awaitable!(VerifyBackups);
