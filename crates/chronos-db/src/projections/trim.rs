//! Letting go of rows that every follower is past.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::Result;
use crate::records::{Collection, FollowerPositions, Scope};
use crate::route::sharing::Tenancy;

impl Collection {
    /// Where `versioning` is off: removes version rows, and the objects of superseded versions, that were
    /// written at least `grace` ago and are counted, for their tenant as for all. Keep `grace` above a minute:
    /// younger rows still decide races. Returns how many rows went; 0 where versions are kept.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; calling it again goes on.
    pub async fn trim(&self, grace: Duration) -> Result<u64> {
        if self.workers.index.settings.versioning {
            return Ok(0);
        }
        let scope = self.upkeep_scope().await?;
        self.workers.trimmer.trim(grace, &self.counted(scope).await?, scope).await
    }

    /// How far the rows are counted, after what is settled was: what a row says is gone with it.
    pub(super) async fn counted(&self, scope: &Scope) -> Result<Counted<'_>> {
        let mut common = self.counters().follow().await?.cv;
        if self.workers.index.settings.says_tenant && *scope != Scope::All {
            common = common.min(self.seeing(Scope::All).counters().follow().await?.cv);
        }
        Ok(Counted { collection: self, common })
    }

    /// A handle of the same collection that sees other documents.
    pub(crate) fn seeing(&self, scope: Scope) -> Self {
        Self { tenancy: Tenancy::of(scope), ..self.clone() }
    }
}

/// The totals of a collection, of all of it and of each tenant.
pub(super) struct Counted<'c> {
    collection: &'c Collection,
    /// Up to where those are that every row goes into.
    common: i64,
}

#[async_trait]
impl FollowerPositions for Counted<'_> {
    fn common(&self) -> i64 {
        self.common
    }

    async fn of_tenant(&self, tenant: &str) -> Result<i64> {
        if !self.collection.workers.index.settings.says_tenant {
            return Ok(self.common);
        }
        let own = self.collection.seeing(Scope::Tenant(Arc::from(tenant)));
        Ok(own.counters().follow().await?.cv.min(self.common))
    }
}
