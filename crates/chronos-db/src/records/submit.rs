//! Carrying out what a caller asks for, or letting it wait where the configuration has a fallback queue.

use std::sync::Arc;

use super::collection::Collection;
use super::model::ItemId;
use super::view::Written;
use super::write::{Identity, Request, WriteCall, WriteOptions};
use crate::fallback::entry::lane_of;
use crate::fallback::queue::{FallbackRoute, Waiting};
use crate::{Error, Result};

/// Whether the same operation may succeed later: as it is, or once it is known what became of it.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.is_undecided()
}

impl Collection {
    /// Carries out a request. Where there is a fallback queue, what fails in a way that passes waits in it,
    /// and so does what comes after it for the same item.
    pub(crate) async fn submit(
        &self,
        id: ItemId,
        request: Request,
        mut options: WriteOptions,
    ) -> Result<Written> {
        let Some(fallback) = &self.fallback else { return self.carry_out(id, &request, &options).await };
        // What the handle may not do at all does not wait.
        if let Err(error) = self.scope().await
            && !may_pass(&error)
        {
            return Err(error.during(request.name()).in_collection(self.name()).on_item(id));
        }
        let identity = Arc::new(Identity::new(self.workers.index.env.random.object_id()));
        // Nobody can know the id of an item that is being created.
        if !request.is_creation() {
            let lane = lane_of(fallback.target.as_ref(), self.database(), self.name(), id);
            let waits = fallback.queue.is_waiting(&lane).await.map_err(|error| {
                let message = format!("the fallback queue cannot be asked: {}", error.message());
                error.saying(message).during(request.name()).in_collection(self.name()).on_item(id)
            })?;
            if waits && !self.workers.index.env.fail.skips("guard.lane") {
                return self.enqueue(fallback, &identity, id, &request, &options, None).await;
            }
        }
        if let Some(away) = fallback.breaker.as_ref().and_then(|breaker| breaker.refuses()) {
            return self.enqueue(fallback, &identity, id, &request, &options, Some(&away)).await;
        }
        options.identity = Some(Arc::clone(&identity));
        let attempt = self.carry_out(id, &request, &options);
        let done = match &fallback.breaker {
            Some(breaker) => breaker.watch(attempt).await,
            None => attempt.await,
        };
        match done {
            Err(error) if may_pass(&error) && !identity.is_committed() => {
                self.enqueue(fallback, &identity, id, &request, &options, Some(&error)).await
            }
            done => done,
        }
    }

    /// Carries out a request now.
    pub(crate) async fn carry_out(
        &self,
        id: ItemId,
        request: &Request,
        options: &WriteOptions,
    ) -> Result<Written> {
        let scope = self.scope().await?;
        let done = match request {
            Request::Change(change) => {
                self.workers.writer.write(WriteCall { id, change, options, scope, lock: None }).await?
            }
            Request::Restore(which) => self.workers.restorer.restore(id, *which, options, scope).await?,
        };
        Ok(done.into())
    }

    /// Lets a request wait, if nothing is known to be wrong with it.
    async fn enqueue(
        &self,
        fallback: &FallbackRoute,
        identity: &Identity,
        id: ItemId,
        request: &Request,
        options: &WriteOptions,
        failed: Option<&Error>,
    ) -> Result<Written> {
        // While it is not known whose documents the handle sees, nothing can be wrong with what they say.
        let tenant = self.scope().await.ok().and_then(|scope| scope.stamp());
        self.workers.writer.check(id, request, tenant).await?;
        let waiting = Waiting {
            identity: identity.id,
            route: &fallback.route,
            target: fallback.target.as_ref(),
            database: self.database(),
            collection: self.name(),
            item: id,
            request,
            options,
            follows: identity.follows(),
            failed,
        };
        let entry = fallback.queue.enqueue(waiting).await.map_err(|error| {
            let why = failed.map_or("others of the item wait", Error::message);
            let message = format!("{why}; and the operation may not have been queued: {}", error.message());
            let failure =
                Error::new(failed.map_or(error.kind(), Error::kind), message).during(request.name());
            failure.in_collection(self.name()).on_item(id).undecided().caused_by(error)
        })?;
        self.workers.index.env.telemetry.queued();
        let (collection, request_id) = (self.name(), entry.request_id());
        match failed {
            Some(error) => tracing::warn!(collection, item = %id, request_id, %error, "a write is queued"),
            None => tracing::debug!(collection, item = %id, request_id, "a write is queued behind others"),
        }
        Ok(Written {
            id,
            ov: -1,
            cv: -1,
            at: entry.created,
            changed: false,
            created: false,
            queued: Some(request_id),
        })
    }
}
