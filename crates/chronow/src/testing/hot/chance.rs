//! Random histories against a simple model. A failing seed is printed; `CHRONOW_SEED` runs it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Bus, PATIENCE, calm, message, text};
use crate::SubscriptionName;
use crate::hot::{Advance, Delivery, Hot, Outgoing, Select, Settle, Settled, SubscriptionPatch, TopicPatch};

/// Most deliveries in these histories.
const LIMIT: u32 = 3;

/// A small random source that is the same everywhere.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let given = std::env::var("CHRONOW_SEED").ok().and_then(|seed| seed.parse().ok());
        let fresh = || {
            use std::hash::{BuildHasher as _, RandomState};
            RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
        };
        let seed = given.unwrap_or_else(fresh);
        // Shown by the test runner if the test fails.
        #[allow(clippy::print_stdout, reason = "a seed must be seen to be run again")]
        {
            println!("CHRONOW_SEED={seed}");
        }
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

/// Where a message of a subscription is, in the model.
#[derive(Clone, Debug, PartialEq)]
enum Where {
    Ready,
    Held(Delivery, bool),
    Deferred,
    Dead(String),
    Done,
}

#[derive(Clone, Debug)]
struct Owed {
    text: String,
    key: Option<String>,
    at: Where,
    deliveries: u32,
    /// It came back from the dead letters, behind what was published later.
    redriven: bool,
}

/// One subscription of the model.
#[derive(Clone, Debug)]
struct Modelled {
    name: SubscriptionName,
    even_only: bool,
    owed: BTreeMap<usize, Owed>,
    started: u64,
    acked: u64,
    /// The order in which messages became dead letters.
    dead: Vec<usize>,
}

impl Modelled {
    /// Whether a pull may hand out this message now.
    fn available(&self, n: usize) -> bool {
        let owed = &self.owed[&n];
        let Some(key) = &owed.key else { return owed.at == Where::Ready };
        let same = || self.owed.iter().filter(|(_, other)| other.key.as_ref() == Some(key));
        let blocked = same().any(|(m, other)| {
            matches!(other.at, Where::Held(..)) || (!owed.redriven && !other.redriven && *m < n && other.at == Where::Ready)
        });
        owed.at == Where::Ready && !blocked
    }

    fn held(&self) -> Vec<usize> {
        self.owed.iter().filter(|(_, owed)| matches!(owed.at, Where::Held(..))).map(|(n, _)| *n).collect()
    }

    fn count(&self, holds: impl Fn(&Where) -> bool) -> u64 {
        self.owed.values().filter(|owed| holds(&owed.at)).count() as u64
    }
}

struct History {
    bus: Bus,
    chance: Chance,
    subscriptions: Vec<Modelled>,
    published: usize,
    numbers: BTreeMap<String, usize>,
}

impl History {
    async fn publish(&mut self) {
        let count = 1 + self.chance.below(4);
        let mut batch = Vec::new();
        for n in self.published..self.published + count {
            let key = [None, None, Some("a"), Some("b")][self.chance.below(4)].map(str::to_owned);
            let headers = BTreeMap::from([("parity".to_owned(), (n % 2).to_string())]);
            batch.push(Outgoing { key, headers, ..message(&n.to_string()) });
        }
        let ids = self.bus.publish_all(batch.clone()).await;
        for ((n, sent), id) in (self.published..).zip(batch).zip(ids) {
            assert!(self.numbers.insert(id, n).is_none(), "an id was given out twice");
            for subscription in self.subscriptions.iter_mut().filter(|one| !one.even_only || n % 2 == 0) {
                let owed = Owed { text: n.to_string(), key: sent.key.clone(), at: Where::Ready, deliveries: 0, redriven: false };
                subscription.owed.insert(n, owed);
            }
        }
        self.published += count;
    }

    async fn pull(&mut self, s: usize) {
        let (max, start) = (1 + self.chance.below(5), self.chance.below(4));
        let name = self.subscriptions[s].name.clone();
        let begun = Instant::now();
        loop {
            let [most, first] = [max, start].map(|count| u32::try_from(count).unwrap());
            let (pulled, started) = self.bus.hot.pull_and_start(&name, most, first).await.unwrap();
            let pulled = pulled.deliveries;
            assert!(pulled.len() <= max && started <= start.min(pulled.len()));
            let subscription = &mut self.subscriptions[s];
            for (place, delivery) in pulled.iter().enumerate() {
                let n = self.numbers[&delivery.lock.id];
                assert!(subscription.owed.contains_key(&n), "{n} is none of {name}'s");
                assert!(subscription.available(n), "{n} of {name} was not due: {:?}", subscription.owed[&n]);
                let owed = subscription.owed.get_mut(&n).unwrap();
                assert_eq!((text(&delivery.payload), &delivery.key, delivery.deliveries), (owed.text.clone(), &owed.key, owed.deliveries));
                let begun = place < started;
                owed.at = Where::Held(delivery.clone(), begun);
                owed.deliveries += u32::from(begun);
                assert!(owed.deliveries <= LIMIT, "{n} was started too often in {name}");
                subscription.started += u64::from(begun);
            }
            let due = subscription.owed.keys().any(|n| subscription.available(*n));
            if !pulled.is_empty() || !due {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "something is due in {name} and does not come");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Settles some and starts some, in one step.
    async fn advance(&mut self, s: usize) {
        let mut advance = Advance::default();
        let (mut settled, mut started) = (Vec::new(), Vec::new());
        for n in self.subscriptions[s].held() {
            let owed = &self.subscriptions[s].owed[&n];
            let Where::Held(delivery, begun) = &owed.at else { continue };
            let reason = format!("failure {n}");
            match (begun, self.chance.below(8)) {
                (false, 0..5) => {
                    advance.start.push(delivery.lock.clone());
                    started.push(n);
                }
                (false, 5) => {
                    advance.settle.push((delivery.lock.clone(), Settle::Release));
                    settled.push(n);
                }
                (true, choice) if choice < 7 => {
                    let settle = match choice {
                        0..3 => Settle::Ack,
                        3..5 => Settle::Retry { delay: Some(Duration::ZERO), reason },
                        // A key whose deferred message is fetched while the next is in flight has no one order.
                        5 if owed.key.is_none() => Settle::Defer,
                        5 => Settle::Ack,
                        _ if self.chance.below(2) == 0 => Settle::Refuse { reason },
                        _ => Settle::DeadLetter { reason },
                    };
                    advance.settle.push((delivery.lock.clone(), settle));
                    settled.push(n);
                }
                _ => {}
            }
        }
        let name = self.subscriptions[s].name.clone();
        let advanced = self.bus.hot.advance(&name, advance.clone()).await.unwrap();
        assert_eq!(advanced.started, vec![true; started.len()]);
        let subscription = &mut self.subscriptions[s];
        for n in started {
            let owed = subscription.owed.get_mut(&n).unwrap();
            owed.deliveries += 1;
            assert!(owed.deliveries <= LIMIT, "{n} was started too often in {name}");
            subscription.started += 1;
            if let Where::Held(_, begun) = &mut owed.at {
                *begun = true;
            }
        }
        for ((n, (_, settle)), outcome) in settled.into_iter().zip(advance.settle).zip(advanced.settled) {
            let owed = subscription.owed.get_mut(&n).unwrap();
            let (at, expected) = match settle {
                Settle::Ack => (Where::Done, Settled::Done),
                Settle::Release => (Where::Ready, Settled::Done),
                Settle::Defer => (Where::Deferred, Settled::Done),
                Settle::DeadLetter { reason } => (Where::Dead(reason), outcome),
                Settle::Refuse { reason } => {
                    owed.deliveries -= 1;
                    subscription.started -= 1;
                    (Where::Dead(reason), Settled::Done)
                }
                Settle::Retry { reason, .. } if owed.deliveries >= LIMIT => (Where::Dead(reason), Settled::DeadLettered),
                Settle::Retry { .. } => (Where::Ready, Settled::Done),
            };
            assert_eq!(outcome, expected, "{n} of {name}");
            assert_ne!(outcome, Settled::Lost);
            subscription.acked += u64::from(at == Where::Done);
            if matches!(at, Where::Dead(_)) {
                subscription.dead.push(n);
            }
            owed.at = at;
        }
    }

    async fn fetch_deferred(&mut self, s: usize) {
        let ids: Vec<String> = self.numbers.keys().cloned().collect();
        let asked: Vec<String> = ids.into_iter().filter(|_| self.chance.below(3) == 0).collect();
        let subscription = &mut self.subscriptions[s];
        let mut expected: Vec<usize> = asked.iter().map(|id| self.numbers[id]).collect();
        expected.retain(|n| subscription.owed.get(n).is_some_and(|owed| owed.at == Where::Deferred));
        expected.sort_unstable();
        let fetched = self.bus.hot.fetch_deferred(&subscription.name, asked).await.unwrap();
        let mut got = Vec::new();
        for delivery in fetched {
            let n = self.numbers[&delivery.lock.id];
            let owed = subscription.owed.get_mut(&n).unwrap();
            assert_eq!(delivery.deliveries, owed.deliveries);
            // With its deliveries used up it cannot be started again.
            let begun = owed.deliveries >= LIMIT;
            owed.at = Where::Held(delivery, begun);
            got.push(n);
        }
        got.sort_unstable();
        assert_eq!(got, expected);
    }

    async fn redrive(&mut self, s: usize) {
        let count = 1 + self.chance.below(3);
        let subscription = &mut self.subscriptions[s];
        let expected: Vec<usize> = subscription.dead.iter().copied().take(count).collect();
        let select = if self.chance.below(2) == 0 {
            Select::Oldest(count as u64)
        } else {
            let id_of = |n: &usize| self.numbers.iter().find(|(_, m)| *m == n).unwrap().0.clone();
            Select::Ids(expected.iter().map(id_of).collect())
        };
        assert_eq!(self.bus.hot.redrive(&subscription.name, &select).await.unwrap(), expected.len() as u64);
        subscription.dead.retain(|n| !expected.contains(n));
        for n in expected {
            let owed = subscription.owed.get_mut(&n).unwrap();
            (owed.at, owed.deliveries, owed.redriven) = (Where::Ready, 0, true);
        }
    }

    /// What the store says of every subscription is what the model says.
    async fn check(&self) {
        for subscription in &self.subscriptions {
            let stats = self.bus.stats(&subscription.name).await;
            let ready = subscription.count(|at| *at == Where::Ready);
            let said = stats.backlog + stats.scheduled;
            // What the filter leaves out is settled by a pull, and waits for one.
            assert!(if subscription.even_only { said >= ready } else { said == ready }, "{ready} are ready: {stats:?}");
            let counts = (stats.pending, stats.deferred, stats.dead_letters, stats.deliveries, stats.acked);
            let expected = (
                subscription.count(|at| matches!(at, Where::Held(..))),
                subscription.count(|at| *at == Where::Deferred),
                subscription.dead.len() as u64,
                subscription.started,
                subscription.acked,
            );
            assert_eq!(counts, expected, "{stats:?}");
            let mut dead = Vec::new();
            for letter in self.bus.dead(&subscription.name).await {
                let n = self.numbers[&letter.id];
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
        for s in 0..self.subscriptions.len() {
            loop {
                self.fetch_deferred(s).await;
                self.pull(s).await;
                self.advance(s).await;
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

async fn random_history(hot: Arc<dyn Hot>, shards: u16) {
    let chance = Chance::new();
    let bus = Bus::with(hot, TopicPatch { shards: Some(shards), ..TopicPatch::default() }).await;
    let patch = SubscriptionPatch { max_deliveries: Some(LIMIT), ..calm() };
    let filter = Some(Some(serde_json::json!({ "headers.parity": "0" })));
    let mut subscriptions = Vec::new();
    for (name, even_only) in [("all", false), ("even", true), ("more", false)] {
        let filter = if even_only { filter.clone() } else { None };
        let name = bus.subscribe_with(name, SubscriptionPatch { filter, ..patch.clone() }).await;
        subscriptions.push(Modelled { name, even_only, owed: BTreeMap::new(), started: 0, acked: 0, dead: Vec::new() });
    }
    let mut history = History { bus, chance, subscriptions, published: 0, numbers: BTreeMap::new() };
    for step in 0..150 {
        let s = history.chance.below(history.subscriptions.len());
        match history.chance.below(12) {
            0..2 => history.publish().await,
            2..6 => history.pull(s).await,
            6..10 => history.advance(s).await,
            10 => history.fetch_deferred(s).await,
            // Letters of one step have one time, so the oldest are clear only if there is one.
            _ if history.subscriptions[s].dead.len() == 1 => history.redrive(s).await,
            _ => {}
        }
        if step % 10 == 9 {
            history.check().await;
        }
    }
    history.finish().await;
    history.check().await;
}

/// A random history matches the model.
pub async fn a_random_history_matches_the_model(hot: Arc<dyn Hot>) {
    random_history(hot, 1).await;
}

/// A random history of a sharded topic matches the model.
pub async fn a_random_history_of_a_sharded_topic_matches_the_model(hot: Arc<dyn Hot>) {
    random_history(hot, 3).await;
}

/// What consumers saw of one message.
#[derive(Clone, Debug, Default)]
struct Seen {
    started: u32,
    acked: u32,
}

/// Consumers that vanish with messages in hand lose nothing, and repeat nothing beyond the limit or after its end.
pub async fn consumers_that_vanish_lose_and_repeat_nothing_beyond_the_limit(hot: Arc<dyn Hot>) {
    const MESSAGES: usize = 60;
    let mut chance = Chance::new();
    let bus = Bus::new(hot).await;
    let patch = SubscriptionPatch { visibility_ms: Some(400), max_deliveries: Some(LIMIT), ..calm() };
    let wild = bus.subscribe_with("wild", patch).await;
    let tame = bus.subscribe("tame").await;
    bus.publish_all((0..MESSAGES).map(|n| message(&n.to_string())).collect()).await;
    let consumers = (0..4).map(|_| {
        let (bus, wild, mut chance) = (bus.clone(), wild.clone(), Chance(chance.next()));
        tokio::spawn(async move {
            let (mut seen, begun) = (BTreeMap::<String, Seen>::new(), Instant::now());
            loop {
                let pulled = bus.hot.pull(&wild, 4).await.unwrap();
                if pulled.deliveries.is_empty() {
                    let stats = bus.stats(&wild).await;
                    if stats.backlog + stats.pending + stats.scheduled == 0 {
                        return seen;
                    }
                    assert!(begun.elapsed() < PATIENCE * 2, "it never ends: {stats:?}");
                    bus.hot.wait(&wild, Duration::from_millis(30)).await.unwrap();
                }
                for delivery in pulled.deliveries {
                    // Vanishes with it, before or after the start, or goes on.
                    if chance.below(6) == 0 || !bus.start(&wild, &delivery.lock).await {
                        continue;
                    }
                    let mine = seen.entry(delivery.lock.id.clone()).or_default();
                    mine.started += 1;
                    let settle = match chance.below(4) {
                        0 => continue,
                        1 => super::retry("wild"),
                        _ => Settle::Ack,
                    };
                    let acks = settle == Settle::Ack;
                    let settled = bus.settle(&wild, &delivery.lock, settle).await;
                    mine.acked += u32::from(acks && settled == Settled::Done);
                }
            }
        })
    });
    let mut seen = BTreeMap::<String, Seen>::new();
    for consumer in futures::future::join_all(consumers).await {
        for (id, theirs) in consumer.unwrap() {
            let all = seen.entry(id).or_default();
            all.started += theirs.started;
            all.acked += theirs.acked;
        }
    }
    let dead: BTreeMap<_, _> = bus.dead(&wild).await.into_iter().map(|dead| (dead.id.clone(), dead)).collect();
    assert_eq!(seen.len(), MESSAGES, "every message was started");
    for (id, seen) in &seen {
        assert!(seen.started <= LIMIT, "{id} was started {} times", seen.started);
        assert_eq!(seen.acked + u32::from(dead.contains_key(id)), 1, "{id} ends once: {seen:?}");
        if let Some(dead) = dead.get(id) {
            assert_eq!((dead.deliveries, seen.started), (LIMIT, LIMIT), "{id}");
        }
    }
    let stats = bus.stats(&wild).await;
    assert_eq!(stats.deliveries, seen.values().map(|seen| u64::from(seen.started)).sum::<u64>());
    assert_eq!(bus.take(&tame, MESSAGES).await.len(), MESSAGES);
    bus.nothing(&tame).await;
}
