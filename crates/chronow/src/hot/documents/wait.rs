//! Waiting for something new: woken by this process, found out by looking for others. Of all that wait for
//! one subscription in this process, one looks, and one is woken.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bson::Document;
use chronos_db::documents::{Filter, Scan};

use super::cache::SubscriptionContext;
use super::entities::last_sequence;
use super::fields::int;
use super::keys::{sequence_key, signal_key};
use super::store::Engine;
use crate::hot::millis::to_signed_millis;
use crate::{Error, ErrorKind, Result, SubscriptionName, Timestamp};

/// The first and the longest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(50);

/// After so many looks one goes to the delivery records, too: what others settled may have made something
/// due.
const LOOKS_PER_RECORDS: u32 = 4;

impl Engine {
    pub(super) async fn wait(&self, name: &SubscriptionName, timeout: Duration) -> Result<()> {
        let context = self.open_to_look(name).await?;
        // What came since the last pull has not been looked at.
        if context.seen != context.cache.seen.lock().unwrap_or(context.seen) {
            return Ok(());
        }
        let end = self.env.clock.now().plus_millis(to_signed_millis(timeout));
        loop {
            if context.cache.left.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(left) = self.left_until(end) else { return Ok(()) };
            let looker = tokio::select! {
                biased;
                () = context.cache.notify.notified() => None,
                looker = context.cache.looker.acquire() => Some(looker),
                () = self.env.clock.sleep(left) => return Ok(()),
            };
            match looker {
                None if self.has_something(&context, true).await? => return Ok(()),
                None => {}
                Some(looker) => {
                    let _looker = looker
                        .map_err(|e| Error::new(ErrorKind::Closed, "the hot tier is closed").caused_by(e))?;
                    return self.look_until(&context, end).await;
                }
            }
        }
    }

    fn left_until(&self, end: Timestamp) -> Option<Duration> {
        let left =
            u64::try_from(end.as_millis() - self.env.clock.now().as_millis()).ok().filter(|left| *left > 0);
        left.map(Duration::from_millis)
    }

    /// Looks again and again until there is something, or it is time.
    async fn look_until(&self, context: &SubscriptionContext, end: Timestamp) -> Result<()> {
        let (mut pause, mut looks) = (SHORTEST, 0_u32);
        while let Some(left) = self.left_until(end) {
            let notified = tokio::select! {
                biased;
                () = context.cache.notify.notified() => true,
                () = self.env.clock.sleep(pause.min(left)) => false,
            };
            pause = (pause * 2).min(LONGEST);
            looks += 1;
            if self.has_something(context, notified || looks.is_multiple_of(LOOKS_PER_RECORDS)).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether something came since the last pull of this process, or it left something; with `records`,
    /// whether something has become due.
    async fn has_something(&self, context: &SubscriptionContext, records: bool) -> Result<bool> {
        if context.cache.left.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let known = context.cache.seen.lock().unwrap_or(context.seen);
        let (sequence, signal) = (sequence_key(&context.topic.id), signal_key(&context.subscription.id));
        let found = self.get_map(&self.collections.topics, vec![sequence.clone(), signal.clone()]).await?;
        let signalled = found.get(&signal).map_or(Ok(-1), |signal| int(signal, "value"))?;
        if (last_sequence(found.get(&sequence))?, signalled) != known {
            return Ok(true);
        }
        if context.subscription.options.paused || !records {
            return Ok(false);
        }
        let now = self.documents.now().await?;
        let filter =
            Filter::eq("w", context.subscription.id.as_str()).and(Filter::lte("due", now.as_millis()));
        let scan = Scan { filter, limit: Some(1), without: vec!["b".to_owned()], ..Scan::default() };
        let due: Vec<Document> = self.scan(&self.collections.deliveries, scan).await?;
        Ok(!due.is_empty())
    }
}
