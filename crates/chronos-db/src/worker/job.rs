//! Jobs, and what they are done for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::documents::{DocumentStore, Namespace};
use crate::lease::LEASES;
use crate::messaging::MessagingDb;
use crate::projections::counters::owner_of;
use crate::records::Collection;
use crate::{DamagedRow, Error, FailingVersion, Result};

/// What a job is done for.
pub(crate) enum Subject {
    /// A collection of records.
    Collection(Collection),
    /// A messaging database, with all its tenants.
    Messaging(Arc<MessagingDb>),
    /// A database that has leases.
    Database,
}

/// What one lease is for.
pub(crate) struct Target {
    /// The name of the lease.
    pub(super) lease: String,
    /// How it is named to people.
    pub(super) shown: String,
    pub(super) documents: Arc<dyn DocumentStore>,
    pub(super) leases: Namespace,
    pub(crate) subject: Subject,
}

/// What failures are distinguished and named by.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailureKey<'t> {
    /// Unique among all.
    pub(super) key: &'t str,
    /// For people.
    pub(super) shown: &'t str,
}

impl Target {
    pub(super) fn failure_key(&self) -> FailureKey<'_> {
        FailureKey { key: &self.lease, shown: &self.shown }
    }

    /// One collection, as its handle sees it; `homes` tells where its counters and objects are.
    pub(super) async fn of_collection(collection: &Collection, homes: &str, shown: String) -> Result<Self> {
        let owner = owner_of(collection).await?;
        Ok(Self {
            lease: format!("work|{owner}|{homes}"),
            shown,
            documents: Arc::clone(&collection.workers.index.documents),
            leases: Namespace::new(collection.database(), LEASES),
            subject: Subject::Collection(collection.clone()),
        })
    }
}

/// A part of a job, with failures of its own.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Unique among all targets.
    pub(crate) key: String,
    /// Which part, for people.
    pub(crate) shown: String,
}

/// The result of a job.
#[derive(Debug, Default)]
pub(crate) struct JobOutcome {
    /// How many of what there were; the names are among [`Job::counts`].
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// Versions that could not be stored.
    pub(crate) failing: Vec<FailingVersion>,
    /// Rows that cannot be read.
    pub(crate) damaged: Vec<DamagedRow>,
    /// Parts of it that did not fail.
    pub(crate) worked: Vec<Part>,
    /// Parts of it that failed while the others went on.
    pub(crate) failed: Vec<(Part, Error)>,
    /// Something is left that may be done soon.
    pub(crate) is_unfinished: bool,
}

impl JobOutcome {
    pub(crate) fn counted(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        Self { counts: counts.into_iter().collect(), ..Self::default() }
    }
}

/// A piece of work that needs a clock, or that a dead process left. It may be run at any time, also by two at once,
/// and may end anywhere: the next run goes on.
#[async_trait]
pub(crate) trait Job: Send + Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// What it counts.
    fn counts(&self) -> &'static [&'static str];

    /// It runs no more often than that, whichever worker does it; zero for every round.
    fn every(&self) -> Duration {
        Duration::ZERO
    }

    /// As [`every`](Self::every), where the configuration of the target says otherwise.
    fn every_for(&self, _: &Target) -> Duration {
        self.every()
    }

    /// Whether [`Worker::once`](super::Worker::once) does it whenever it is asked, however short ago it ran.
    fn is_always_due(&self) -> bool {
        false
    }

    /// Whether there is anything to do for it.
    fn is_for(&self, subject: &Subject) -> bool;

    /// Does it. `patience` is how long it may wait for something that does not come.
    async fn run(&self, target: &Target, patience: Duration) -> Result<JobOutcome>;
}
