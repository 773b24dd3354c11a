//! Putting messages back from their copies in the warm tier.

use futures::TryStreamExt as _;

use super::runs;
use super::subscription::Subscription;
use crate::{Error, Result, Timestamp};

/// Messages put back in one step.
const REPLAYED: usize = 200;

impl Subscription {
    /// Puts messages back into this subscription from their copies in the warm tier. Returns how many.
    ///
    /// # Errors
    /// `UNSUPPORTED` without a warm tier; `NOT_FOUND` if there is no such subscription; `WARM_TIER_ERROR` or
    /// `HOT_TIER_ERROR` if a store fails: running it again goes on.
    pub fn replay(&self) -> Replay {
        Replay::new(self.clone())
    }
}

/// Puts messages back from the warm tier; see [`Subscription::replay`]. Answers how many.
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Replay {
    subscription: Subscription,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    ids: Option<Vec<String>>,
}

impl Replay {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, from: None, until: None, ids: None }
    }

    /// Replays only what was published then or later.
    pub fn from(mut self, at: Timestamp) -> Self {
        self.from = Some(at);
        self
    }

    /// Replays only what was published before.
    pub fn until(mut self, at: Timestamp) -> Self {
        self.until = Some(at);
        self
    }

    /// Replays only these messages; those without a copy are left out.
    pub fn ids(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ids = Some(ids.into_iter().map(Into::into).collect());
        self
    }

    async fn run(self) -> Result<u64> {
        let name = self.subscription.name.clone();
        self.replay().await.map_err(|error: Error| error.during("replay").on(&name))
    }

    async fn replay(self) -> Result<u64> {
        let Self { subscription, from, until, ids } = self;
        let (inner, topic) = (&subscription.inner, subscription.name.topic());
        let warm = inner.warm_tier()?;
        let mut count = 0;
        if let Some(ids) = ids {
            for ids in ids.chunks(REPLAYED) {
                let mut kept = warm.kept_by_id(topic, ids).await?;
                kept.retain(|copy| {
                    from.is_none_or(|from| copy.published_at >= from)
                        && until.is_none_or(|until| copy.published_at < until)
                });
                count += inner.hot.replay(&subscription.name, kept).await?;
            }
            return Ok(count);
        }
        let mut chunks = warm.kept(topic, from, until)?.try_chunks(REPLAYED);
        while let Some(chunk) = chunks.try_next().await.map_err(|failed| failed.1)? {
            count += inner.hot.replay(&subscription.name, chunk).await?;
        }
        Ok(count)
    }
}

runs!(Replay => u64, Replay by subscription.inner);
