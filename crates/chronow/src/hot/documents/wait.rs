//! Waiting for something new: woken by this process, found out by looking for others.

use std::time::Duration;

use bson::Document;
use chronos_db::documents::{Filter, Scan};

use super::entities::last_place;
use super::keys::{sequence_key, signal_key};
use super::store::{Engine, int, locked};
use crate::{Result, SubscriptionName};

/// The first and the longest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(50);

/// After so many looks one goes to the cards, too: what others settled may have made something due.
const LOOKS_PER_CARDS: u32 = 4;

impl Engine {
    pub(super) async fn wait(&self, name: &SubscriptionName, timeout: Duration) -> Result<()> {
        let opened = self.open(name).await?;
        // What came since the last pull has not been looked at.
        let known = locked(&opened.local.seen).unwrap_or(opened.seen);
        if opened.seen != known {
            return Ok(());
        }
        let (sequence, signal) = (sequence_key(&opened.topic.id), signal_key(&opened.subscription.id));
        let end = self.runtime.clock.now().plus_millis(super::settle::millis(timeout));
        let (mut moved, mut pause, mut looks) = (self.moved.subscribe(), SHORTEST, 0_u32);
        loop {
            let left = end.as_millis() - self.runtime.clock.now().as_millis();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return Ok(()) };
            let told = tokio::select! {
                // The sender lives as long as the engine.
                _ = moved.changed() => true,
                () = self.runtime.clock.sleep(pause.min(Duration::from_millis(left))) => false,
            };
            pause = (pause * 2).min(LONGEST);
            looks += 1;
            let found = self.get_map(&self.spaces.topics, vec![sequence.clone(), signal.clone()]).await?;
            let signalled = found.get(&signal).map_or(Ok(-1), |signal| int(signal, "value"))?;
            if (last_place(found.get(&sequence))?, signalled) != known {
                return Ok(());
            }
            if !opened.subscription.options.paused && (told || looks.is_multiple_of(LOOKS_PER_CARDS)) {
                let now = self.documents.now().await?;
                let filter = Filter::eq("w", opened.subscription.id.as_str()).and(Filter::lte("due", now.as_millis()));
                let scan = Scan { filter, limit: Some(1), without: vec!["b".to_owned()], ..Scan::default() };
                let due: Vec<Document> = self.scan(&self.spaces.cards, scan).await?;
                if !due.is_empty() {
                    return Ok(());
                }
            }
        }
    }
}
