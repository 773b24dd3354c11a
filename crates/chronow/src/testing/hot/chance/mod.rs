//! Random histories against a simple model. A failing seed is printed; `CHRONOW_SEED` runs it again.

mod consuming;
mod model;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::model::{Modelled, Owed, Where};
pub(super) use self::random::Chance;
use super::{Bus, calm, message};
use crate::hot::{HotTier, OutboundMessage, SubscriptionPatch, TopicPatch};

/// Most deliveries in these histories.
pub(super) const LIMIT: u32 = 3;

struct History {
    pub(super) bus: Bus,
    pub(super) chance: Chance,
    pub(super) subscriptions: Vec<Modelled>,
    published: usize,
    pub(super) numbers: BTreeMap<String, usize>,
    pub(super) keys: Vec<Option<String>>,
    /// Scheduled for a time that never comes here.
    pub(super) far: Vec<usize>,
    /// Taken back: their dedup ids are free.
    pub(super) cancelled: BTreeSet<usize>,
}

/// How a message of a history is published.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Keyed(&'static str),
    /// Expired before it is looked for.
    Brief,
    Soon,
    Far,
}

impl History {
    async fn publish(&mut self) {
        let count = 1 + self.chance.below(4);
        let (mut batch, mut kinds) = (Vec::new(), Vec::new());
        let now = self.bus.hot.now().await.unwrap();
        for n in self.published..self.published + count {
            let kinds_there_are = [
                Kind::Plain,
                Kind::Plain,
                Kind::Plain,
                Kind::Keyed("a"),
                Kind::Keyed("b"),
                Kind::Brief,
                Kind::Soon,
                Kind::Far,
            ];
            let kind = kinds_there_are[self.chance.below(kinds_there_are.len())];
            let headers = BTreeMap::from([("parity".to_owned(), (n % 2).to_string())]);
            let mut sent =
                OutboundMessage { headers, dedup_id: Some(format!("d{n}")), ..message(&n.to_string()) };
            match kind {
                Kind::Plain => {}
                Kind::Keyed(key) => sent.key = Some(key.to_owned()),
                Kind::Brief => sent.ttl = Some(Duration::from_millis(1)),
                Kind::Soon => sent.not_before = Some(now.plus_millis(2)),
                Kind::Far => sent.not_before = Some(now.plus_millis(3_600_000)),
            }
            batch.push(sent);
            kinds.push(kind);
        }
        let ids = self.bus.publish_all(batch.clone()).await;
        for (((n, sent), kind), id) in (self.published..).zip(batch).zip(kinds).zip(ids) {
            assert!(self.numbers.insert(id, n).is_none(), "an id was given out twice");
            self.keys.push(sent.key.clone());
            if kind == Kind::Far {
                self.far.push(n);
                continue;
            }
            let at = if kind == Kind::Brief { Where::Expiring } else { Where::Ready };
            for subscription in self.subscriptions.iter_mut().filter(|one| !one.even_only || n % 2 == 0) {
                let owed = Owed {
                    text: n.to_string(),
                    key: sent.key.clone(),
                    at: at.clone(),
                    deliveries: 0,
                    redriven: false,
                };
                subscription.owed.insert(n, owed);
            }
        }
        self.published += count;
        // So that what is brief is over, and what comes soon is due.
        let published = self.bus.hot.now().await.unwrap();
        let bus = self.bus.clone();
        super::until("time passes", || async {
            bus.hot.now().await.unwrap().as_millis() > published.as_millis() + 2
        })
        .await;
    }

    /// Publishes something again under its dedup id.
    async fn repeat(&mut self) {
        if self.published == 0 {
            return;
        }
        let n = self.chance.below(self.published);
        if self.cancelled.contains(&n) {
            return;
        }
        // With its key, because that chooses the shard.
        let again = OutboundMessage {
            dedup_id: Some(format!("d{n}")),
            key: self.keys[n].clone(),
            ..message("never")
        };
        let again = self.bus.send(again).await;
        assert!(again.duplicate);
        assert_eq!(self.numbers[&again.id], n);
    }

    /// Takes something back: what is far away goes, everything else stays.
    async fn cancel(&mut self) {
        if self.published == 0 {
            return;
        }
        let n = match self.chance.below(3) {
            0 => self.chance.below(self.published),
            _ if self.far.is_empty() => return,
            _ => self.far[self.chance.below(self.far.len())],
        };
        let id = self.id_of(n);
        let far = self.far.iter().position(|far| *far == n);
        assert_eq!(self.bus.hot.cancel(&self.bus.topic, &id).await.unwrap(), far.is_some(), "{n}");
        if let Some(at) = far {
            self.far.swap_remove(at);
            self.cancelled.insert(n);
        }
    }

    /// A paused subscription hands out nothing.
    async fn pause(&self, s: usize) {
        let name = &self.subscriptions[s].name;
        let paused = |paused| SubscriptionPatch::default().paused(paused);
        self.bus.hot.ensure_subscription(name, &paused(true)).await.unwrap();
        self.bus.nothing(name).await;
        self.bus.hot.ensure_subscription(name, &paused(false)).await.unwrap();
    }

    pub(super) fn id_of(&self, n: usize) -> String {
        self.numbers.iter().find(|(_, m)| **m == n).unwrap().0.clone()
    }

    /// What the store says of every subscription is what the model says.
    async fn check(&mut self) {
        for s in 0..self.subscriptions.len() {
            self.learn(s).await;
            let subscription = &self.subscriptions[s];
            let stats = self.bus.stats(&subscription.name).await;
            let ready = subscription.count(|at| matches!(at, Where::Ready | Where::Expiring))
                + self.far.iter().filter(|n| !subscription.even_only || *n % 2 == 0).count() as u64;
            let said = stats.backlog + stats.scheduled;
            // What the filter leaves out is settled by a pull, and waits for one.
            assert!(
                if subscription.even_only { said >= ready } else { said == ready },
                "{ready} are ready: {stats:?}"
            );
            let counts = (stats.pending, stats.deferred, stats.dead_letters, stats.deliveries, stats.acked);
            let expected = (
                subscription.count(|at| matches!(at, Where::InFlight(..))),
                subscription.count(|at| *at == Where::Deferred),
                subscription.dead.len() as u64,
                subscription.started,
                subscription.acked,
            );
            assert_eq!(counts, expected, "{stats:?}");
            let mut dead = Vec::new();
            for letter in self.bus.dead(&subscription.name).await {
                let n = self.numbers[&letter.message.id];
                assert_eq!(subscription.owed[&n].at, Where::Dead(letter.reason), "{n}");
                assert_eq!(letter.deliveries, subscription.owed[&n].deliveries);
                dead.push(n);
            }
            let mut expected = subscription.dead.clone();
            // Those of one step have one time.
            dead.sort_unstable();
            expected.sort_unstable();
            assert_eq!(dead, expected);
        }
    }

    /// Handles all that is left.
    async fn finish(&mut self) {
        for n in std::mem::take(&mut self.far) {
            assert!(self.bus.hot.cancel(&self.bus.topic, &self.id_of(n)).await.unwrap());
        }
        for s in 0..self.subscriptions.len() {
            loop {
                self.fetch_deferred(s).await;
                self.pull(s).await;
                self.advance(s).await;
                self.learn(s).await;
                let subscription = &self.subscriptions[s];
                if subscription.owed.values().all(|owed| matches!(owed.at, Where::Done | Where::Dead(_))) {
                    break;
                }
            }
            self.bus.nothing(&self.subscriptions[s].name).await;
            self.bus.at_rest(&self.subscriptions[s].name).await;
        }
    }
}

async fn random_history(hot: Arc<dyn HotTier>, shards: u16) {
    let chance = Chance::new();
    let bus = Bus::with(hot, TopicPatch::default().shards(shards)).await;
    // No lock ends meanwhile, however long it takes.
    let patch = calm().max_deliveries(LIMIT).visibility(Duration::from_millis(3_600_000));
    let filter = chronos_db::json!({ "headers.parity": "0" });
    let mut subscriptions = Vec::new();
    for (name, even_only) in [("all", false), ("even", true), ("more", false)] {
        let patch = if even_only { patch.clone().filter(Some(filter.clone())) } else { patch.clone() };
        let name = bus.subscribe_with(name, patch).await;
        subscriptions.push(Modelled {
            name,
            even_only,
            owed: BTreeMap::new(),
            started: 0,
            acked: 0,
            dead: Vec::new(),
        });
    }
    let mut history = History {
        bus,
        chance,
        subscriptions,
        published: 0,
        numbers: BTreeMap::new(),
        keys: Vec::new(),
        far: Vec::new(),
        cancelled: BTreeSet::new(),
    };
    for step in 0..150 {
        let s = history.chance.below(history.subscriptions.len());
        match history.chance.below(16) {
            0..2 => history.publish().await,
            2..6 => history.pull(s).await,
            6..10 => history.advance(s).await,
            10 => history.fetch_deferred(s).await,
            11..13 => history.dead(s).await,
            13 => history.cancel().await,
            14 => history.repeat().await,
            _ => history.pause(s).await,
        }
        if step % 10 == 9 {
            history.check().await;
        }
    }
    history.finish().await;
    history.check().await;
}

/// A random history matches the model.
pub async fn a_random_history_matches_the_model(hot: Arc<dyn HotTier>) {
    random_history(hot, 1).await;
}

/// A random history of a sharded topic matches the model.
pub async fn a_random_history_of_a_sharded_topic_matches_the_model(hot: Arc<dyn HotTier>) {
    random_history(hot, 3).await;
}
