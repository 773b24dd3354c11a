//! Pulling: what is due, then what is new.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chronos_db::documents::{Filter, Scan};
use futures::FutureExt as _;

use super::entities::{Cursor, Opened};
use super::store::{Engine, ascending, int, locked, put_if};
use super::topics::ATTEMPTS;
use crate::hot::Pulled;
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// Messages of one pull at most; larger wishes are cut.
const MOST: usize = 1_000;

/// Times a pull looks again because others, or messages nobody gets, were in the way.
const ROUNDS: usize = 4;

/// That a subscription is used is noted so often, for those that go when nobody does.
const SEEN_MS: i64 = 60_000;

/// Settlements after which a puller tidies up, and the time after which it does when there is nothing else to
/// do.
const TIDY_AFTER: u64 = 512;
const TIDY_IDLE_MS: i64 = 500;

impl Engine {
    pub(super) async fn pull(&self, name: &SubscriptionName, max: u32) -> Result<Pulled> {
        let local = self.local(name);
        // The semaphore is never closed.
        let _turn = local
            .turn
            .acquire()
            .await
            .map_err(|e| Error::new(ErrorKind::Closed, "the hot tier is closed").caused_by(e))?;
        // What was told until now is seen by this pull.
        let _ = local.told.notified().now_or_never();
        local.left.store(false, Ordering::Relaxed);
        let most = (max as usize).min(MOST);
        let mut pulled = Pulled::default();
        let (mut soon, mut more) = (None, true);
        let mut opened = self.open(name).await?;
        *locked(&local.seen) = Some(opened.seen);
        *locked(&local.opened) = Some(Arc::new(opened.clone()));
        self.note_use(name, &mut opened).await?;
        if opened.subscription.options.paused {
            return Ok(pulled);
        }
        if opened.topic.schedules {
            soon = self.promote(&opened.topic, opened.now).await?;
            opened = self.open(name).await?;
        }
        for round in 0..ROUNDS {
            if round > 0 {
                opened = self.open(name).await?;
            }
            let room = most - pulled.deliveries.len();
            if room == 0 {
                break;
            }
            let due = self.pull_due(&opened, room).await?;
            pulled.deliveries.extend(due.deliveries);
            more = due.more;
            let room = most - pulled.deliveries.len();
            if room > 0 && opened.cursor.at < opened.seen.0 {
                let (fresh, pending) = self.pull_fresh(&opened, room).await?;
                pulled.deliveries.extend(fresh.deliveries);
                more |= fresh.more;
                soon = sooner(soon, pending);
            }
            if !more || !pulled.deliveries.is_empty() {
                break;
            }
        }
        if pulled.deliveries.len() < most {
            soon = sooner(soon, if more { Some(Duration::ZERO) } else { self.next_due(&opened).await? });
            pulled.next_due = soon;
        }
        if more || pulled.deliveries.len() >= most {
            local.left.store(true, Ordering::Relaxed);
            local.told.notify_one();
        }
        self.tidy_sometimes(name, &opened, pulled.deliveries.is_empty()).await;
        Ok(pulled)
    }

    /// When the next card becomes due.
    async fn next_due(&self, opened: &Opened) -> Result<Option<Duration>> {
        let filter = Filter::eq("w", opened.subscription.id.as_str());
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            limit: Some(1),
            without: vec!["b".to_owned()],
            ..Scan::default()
        };
        let first = self.scan(&self.spaces.cards, scan).await?.pop();
        let wait = first.map(|card| int(&card, "due")).transpose()?.map(|due| due - opened.now.as_millis());
        Ok(wait.map(|wait| Duration::from_millis(u64::try_from(wait).unwrap_or(0))))
    }

    /// Notes that somebody uses a subscription, now and then.
    ///
    /// # Errors
    /// `NOT_FOUND` if it was removed meanwhile, because nobody did.
    pub(super) async fn note_use(&self, name: &SubscriptionName, opened: &mut Opened) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let (now, auto_delete) = (opened.now.as_millis(), opened.subscription.options.auto_delete_ms);
            let every =
                auto_delete.map_or(SEEN_MS, |ms| i64::try_from(ms / 4).unwrap_or(SEEN_MS).min(SEEN_MS));
            if now - opened.cursor.seen <= every {
                return Ok(());
            }
            let (rev, noted) = (self.fresh(), Cursor { seen: now, ..opened.cursor.clone() });
            if self
                .write_one(&self.spaces.topics, put_if(noted.to_document(rev), noted.rev))
                .await?
                .is_applied()
            {
                opened.cursor = Cursor { rev, ..noted };
                return Ok(());
            }
            *opened = self.open(name).await?;
        }
        // Whoever moves the cursor so often notes it, too.
        Ok(())
    }

    /// Tidies up if there is reason to. That it fails is no failure of the pull.
    async fn tidy_sometimes(&self, name: &SubscriptionName, opened: &Opened, idle: bool) {
        let (local, now) = (&opened.local, opened.now.as_millis());
        let settled = local.settled.load(Ordering::Relaxed);
        let rested = now - local.tidied_at.load(Ordering::Relaxed) >= TIDY_IDLE_MS;
        if settled >= TIDY_AFTER || (idle && settled > 0 && rested) {
            local.settled.fetch_sub(settled, Ordering::Relaxed);
            local.tidied_at.store(now, Ordering::Relaxed);
            if let Err(error) = self.tidy_after(name, opened.now).await {
                tracing::warn!(subscription = %name, %error, "tidying up failed; it is tried again");
                local.settled.fetch_add(settled, Ordering::Relaxed);
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
