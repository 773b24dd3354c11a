//! Mending what a crash leaves between two steps.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use futures::FutureExt as _;

use crate::Result;
use crate::documents::{Batch, Guard, Outcome, Write};
use crate::records::model::VersionSelector;
use crate::records::model::{Head, ItemId, Op, Row};

/// The waits between tries to learn what became of a group.
const WAITS: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(Duration::from_millis(100)).with_max_times(4);
/// A try that took longer is the last one.
const LONG_MILLIS: i64 = 1_000;

/// The head that an item should have, as its rows tell.
struct Following {
    head: Option<Head>,
    /// Under which it has to be put, if it is not there yet.
    lacks: Option<Guard>,
}

impl super::RecordIndex {
    /// Puts the head that follows from the item's newest row. Safe at any time and in any number: an older
    /// head never replaces a newer one.
    pub(crate) async fn roll_forward(&self, id: ItemId) -> Result<Option<Head>> {
        let following = self.following(id).await?;
        self.put_following(&following).await?;
        Ok(following.head)
    }

    /// The head, or the one that follows from the rows if it is missing: after two faults an acknowledged
    /// creation may have its row alone.
    pub(crate) async fn head_or_row(&self, id: ItemId) -> Result<Option<Head>> {
        if let Some(head) = self.head(id).await? {
            return Ok(Some(head));
        }
        if self.env.fail.skips("guard.missing_head") {
            return Ok(None);
        }
        let following = self.following(id).await?;
        if let Err(error) = self.put_following(&following).await {
            // Who may only look sees it all the same.
            tracing::debug!(item = %id, %error, "a missing head stays missing; the next writer of the item puts it");
        }
        Ok(following.head)
    }

    async fn put_following(&self, Following { head, lacks }: &Following) -> Result<()> {
        let (Some(head), Some(guard)) = (head, lacks) else { return Ok(()) };
        let mut batch = Batch::new();
        batch.push(&self.names.head, Write::put(head.stored(), guard.clone()));
        self.documents.apply(batch).await.map(drop)
    }

    async fn following(&self, id: ItemId) -> Result<Following> {
        let row = self.newest_row(id).await?;
        let current = self.head(id).await?;
        // Without versioning a head may have outlived its rows.
        let Some(row) = row else { return Ok(Following { head: current, lacks: None }) };
        let mut guard = Guard::Newer { field: "cv".into() };
        if let Some(head) = current.as_ref().filter(|head| head.cv >= row.cv) {
            // Nothing follows an erasure. What did was let in when the numbers of erased versions could be
            // taken again.
            if row.op != Op::Erase || head.erased {
                return Ok(Following { head: current, lacks: None });
            }
            guard = head.unchanged();
        }
        let created = match &current {
            Some(_) => None,
            None => self.row(id, 0).await?,
        };
        let mut head = row.head_after(current.as_ref());
        if let Some(first) = created {
            head.created_at = first.at;
        }
        if self.settings.inline
            && head.inline.is_none()
            && let Some(written) = self.row(id, head.meta.payload.ov).await?
        {
            head = head.keeping_inline(&written);
        }
        Ok(Following { head: Some(head), lacks: Some(guard) })
    }

    /// The item's newest row, without its payload.
    pub(crate) async fn newest_row(&self, id: ItemId) -> Result<Option<Row>> {
        self.row_at(id, VersionSelector::Latest).await
    }

    /// Closes numbers that no version took. Where one did, nothing happens: that number has its row.
    pub(crate) async fn void(&self, cvs: &[i64]) -> Result<Vec<Outcome>> {
        let now = self.documents.now().await?;
        let mut batch = Batch::new();
        for cv in cvs {
            batch.push(&self.names.ver, Write::insert(Row::void_now(&*self.env.random, *cv, now)));
        }
        self.documents.apply(batch).await
    }

    /// [`void`](Self::void), again and again for some seconds while the store does not answer.
    pub(crate) async fn void_until_answered(&self, cvs: &[i64]) -> Result<()> {
        self.until_answered(|| async { self.void(cvs).await.map(drop) }).await
    }

    /// [`roll_forward`](Self::roll_forward), again and again for some seconds while the store does not answer.
    pub(crate) async fn roll_forward_until_answered(&self, id: ItemId) -> Result<()> {
        self.until_answered(|| async move { self.roll_forward(id).await.map(drop) }).await
    }

    async fn until_answered<F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let attempt = || {
            let begun = self.env.clock.now().as_millis();
            let asked = call();
            async move { asked.await.map_err(|error| (error, self.env.clock.now().as_millis() - begun)) }
        };
        let clock = Arc::clone(&self.env.clock);
        let answered = attempt
            .retry(WAITS)
            .sleep(move |wait| clock.sleep(wait))
            // A store that let it wait so long will do so again, and the caller waits as well.
            .when(|(_, took)| *took <= LONG_MILLIS)
            // In a box: else the compiler does not see that it may be sent.
            .boxed()
            .await;
        answered.map_err(|(error, _)| error)
    }
}
