//! Pulling: what is due, then what is new.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronos_db::documents::{Filter, Scan};
use futures::FutureExt as _;

use super::cache::SubscriptionContext;
use super::entities::Cursor;
use super::fields::{ascending, int, put_if};
use super::store::Engine;
use super::topics::ATTEMPTS;
use crate::hot::Pulled;
use crate::hot::millis::to_signed_millis;
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// Messages of one pull at most; larger wishes are cut.
const MOST: usize = 1_000;

/// Times a pull looks again because others, or messages nobody gets, were in the way.
const ROUNDS: usize = 4;

/// That a subscription is used is noted so often, for those that go when nobody does.
const SEEN_MS: i64 = 60_000;

/// Settlements after which a puller tidies up, and the time after which it does when there is nothing else to
/// do.
const GC_AFTER: u64 = 512;
const GC_IDLE_MS: i64 = 500;

impl Engine {
    pub(super) async fn pull(&self, name: &SubscriptionName, max: u32) -> Result<Pulled> {
        let cache = self.cache(name);
        // The semaphore is never closed.
        let _turn = cache
            .turn
            .acquire()
            .await
            .map_err(|e| Error::new(ErrorKind::Closed, "the hot tier is closed").caused_by(e))?;
        // What was notified until now is seen by this pull.
        let _ = cache.notify.notified().now_or_never();
        cache.left.store(false, Ordering::Relaxed);
        let most = (max as usize).min(MOST);
        let mut pulled = Pulled::default();
        let (mut soon, mut more) = (None, true);
        let mut context = self.open(name).await?;
        *cache.seen.lock() = Some(context.seen);
        *cache.context.lock() = Some(Arc::new(context.clone()));
        self.note_use(name, &mut context).await?;
        if context.subscription.options.paused {
            return Ok(pulled);
        }
        if context.topic.schedules {
            soon = self.promote(&context.topic, context.now).await?;
            context = self.open(name).await?;
        }
        for round in 0..ROUNDS {
            if round > 0 {
                context = self.open(name).await?;
            }
            let room = most - pulled.deliveries.len();
            if room == 0 {
                break;
            }
            let due = self.pull_due(&context, room).await?;
            pulled.deliveries.extend(due.deliveries);
            more = due.more;
            let room = most - pulled.deliveries.len();
            if room > 0 && context.cursor.at < context.seen.0 {
                let (new, pending) = self.pull_new(&context, room).await?;
                pulled.deliveries.extend(new.deliveries);
                more |= new.more;
                soon = sooner(soon, pending);
            }
            if !more || !pulled.deliveries.is_empty() {
                break;
            }
        }
        if pulled.deliveries.len() < most {
            soon = sooner(soon, if more { Some(Duration::ZERO) } else { self.next_due(&context).await? });
            pulled.next_due = soon;
        }
        if more || pulled.deliveries.len() >= most {
            cache.left.store(true, Ordering::Relaxed);
            cache.notify.notify_one();
        }
        self.gc_sometimes(name, &context, pulled.deliveries.is_empty()).await;
        Ok(pulled)
    }

    /// When the next delivery record becomes due.
    async fn next_due(&self, context: &SubscriptionContext) -> Result<Option<Duration>> {
        let filter = Filter::eq("w", context.subscription.id.as_str());
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            limit: Some(1),
            without: vec!["b".to_owned()],
            ..Scan::default()
        };
        let first = self.scan(&self.collections.deliveries, scan).await?.pop();
        let wait =
            first.map(|record| int(&record, "due")).transpose()?.map(|due| due - context.now.as_millis());
        Ok(wait.map(|wait| Duration::from_millis(u64::try_from(wait).unwrap_or(0))))
    }

    /// Notes that a subscription is used, now and then.
    ///
    /// # Errors
    /// `NOT_FOUND` if it was removed meanwhile, because nobody did.
    pub(super) async fn note_use(
        &self,
        name: &SubscriptionName,
        context: &mut SubscriptionContext,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let (now, auto_delete) = (context.now.as_millis(), context.subscription.options.auto_delete);
            let every = auto_delete.map_or(SEEN_MS, |after| to_signed_millis(after / 4).min(SEEN_MS));
            if now.saturating_sub(context.cursor.seen) <= every {
                return Ok(());
            }
            let (rev, noted) = (self.new_revision(), Cursor { seen: now, ..context.cursor.clone() });
            if self
                .write_one(&self.collections.topics, put_if(noted.to_document(rev), noted.rev))
                .await?
                .is_applied()
            {
                context.cursor = Cursor { rev, ..noted };
                return Ok(());
            }
            *context = self.open(name).await?;
        }
        // A pull that moves the cursor so often notes it, too.
        Ok(())
    }

    /// Collects garbage if there is reason to. That it fails is not a failure of the pull.
    async fn gc_sometimes(&self, name: &SubscriptionName, context: &SubscriptionContext, idle: bool) {
        let (cache, now) = (&context.cache, context.now.as_millis());
        let settled = cache.settled.load(Ordering::Relaxed);
        let rested = now - cache.gc_at.load(Ordering::Relaxed) >= GC_IDLE_MS;
        if settled >= GC_AFTER || (idle && settled > 0 && rested) {
            cache.settled.fetch_sub(settled, Ordering::Relaxed);
            cache.gc_at.store(now, Ordering::Relaxed);
            if let Err(error) = self.gc_after(name, context.now).await {
                tracing::warn!(subscription = %name, %error, "garbage collection failed; it is tried again");
                cache.settled.fetch_add(settled, Ordering::Relaxed);
            }
        }
    }
}

fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
