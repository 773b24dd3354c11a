//! Random histories against a simple model. A failing seed is printed; `CHRONOW_SEED` runs it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Bus, TIMEOUT, calm, message, text};
use crate::SubscriptionName;
use crate::hot::{
    Delivery, HotTier, OutboundMessage, Select, Settle, SettleAndStart, Settled, SubscriptionPatch,
    TopicPatch,
};

/// Most deliveries in these histories.
pub(super) const LIMIT: u32 = 3;

/// A small random source that is the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new() -> Self {
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

    /// Another source, for somebody beside.
    pub(super) fn split(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
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
    /// Its time is over, and a pull makes it a dead letter on its way.
    Expiring,
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
            matches!(other.at, Where::Held(..))
                || (!owed.redriven && !other.redriven && *m < n && other.at == Where::Ready)
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
    keys: Vec<Option<String>>,
    /// Scheduled for a time that never comes here.
    far: Vec<usize>,
    /// Taken back: their dedup ids are free.
    cancelled: BTreeSet<usize>,
}

/// How a message of a history is published.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Keyed(&'static str),
    /// Expired before anybody looks.
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
        let paused = |paused| SubscriptionPatch { paused: Some(paused), ..SubscriptionPatch::default() };
        self.bus.hot.ensure_subscription(name, &paused(true)).await.unwrap();
        self.bus.nothing(name).await;
        self.bus.hot.ensure_subscription(name, &paused(false)).await.unwrap();
    }

    fn id_of(&self, n: usize) -> String {
        self.numbers.iter().find(|(_, m)| **m == n).unwrap().0.clone()
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
                assert_eq!(
                    (text(&delivery.message.payload), &delivery.message.key, delivery.deliveries),
                    (owed.text.clone(), &owed.key, owed.deliveries)
                );
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
            assert!(begun.elapsed() < TIMEOUT, "something is due in {name} and does not come");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Settles some and starts some, in one step.
    async fn advance(&mut self, s: usize) {
        let mut step = SettleAndStart::default();
        let (mut settled, mut started) = (Vec::new(), Vec::new());
        for n in self.subscriptions[s].held() {
            let owed = &self.subscriptions[s].owed[&n];
            let Where::Held(delivery, begun) = &owed.at else { continue };
            let reason = format!("failure {n}");
            match (begun, self.chance.below(8)) {
                (false, 0..5) => {
                    step.start.push(delivery.lock.clone());
                    started.push(n);
                }
                (false, 5) => {
                    step.settle.push((delivery.lock.clone(), Settle::Release));
                    settled.push(n);
                }
                // Begun, and given back: that counts.
                (true, 7) if owed.deliveries < LIMIT => {
                    step.settle.push((delivery.lock.clone(), Settle::Release));
                    settled.push(n);
                }
                (true, choice) if choice < 7 => {
                    let settle = match choice {
                        0..3 => Settle::Ack,
                        3..5 => Settle::Retry { delay: Some(Duration::ZERO), reason },
                        // A key whose deferred message is fetched while the next is in flight has no one
                        // order.
                        5 if owed.key.is_none() => Settle::Defer,
                        5 => Settle::Ack,
                        _ if self.chance.below(2) == 0 => Settle::Refuse { reason },
                        _ => Settle::DeadLetter { reason },
                    };
                    step.settle.push((delivery.lock.clone(), settle));
                    settled.push(n);
                }
                _ => {}
            }
        }
        let name = self.subscriptions[s].name.clone();
        let outcome = self.bus.hot.settle_and_start(&name, step.clone()).await.unwrap();
        assert_eq!(outcome.started, vec![true; started.len()]);
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
        for ((n, (_, settle)), outcome) in settled.into_iter().zip(step.settle).zip(outcome.settled) {
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
                Settle::Retry { reason, .. } if owed.deliveries >= LIMIT => {
                    (Where::Dead(reason), Settled::DeadLettered)
                }
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

    /// Gives dead letters back, or removes them.
    async fn dead(&mut self, s: usize) {
        self.learn(s).await;
        let redrives = self.chance.below(4) > 0;
        let all = self.subscriptions[s].dead.clone();
        let (select, chosen) = match self.chance.below(3) {
            0 => (Select::All, all),
            // Letters of one step have one time, so the oldest are clear only if there is one.
            1 if all.len() == 1 => (Select::Oldest(1), all),
            _ => {
                let chosen: Vec<usize> = all.into_iter().filter(|_| self.chance.below(2) == 0).collect();
                (Select::Ids(chosen.iter().map(|n| self.id_of(*n)).collect()), chosen)
            }
        };
        let name = self.subscriptions[s].name.clone();
        let told = if redrives {
            self.bus.hot.redrive(&name, &select).await
        } else {
            self.bus.hot.purge_dead_letters(&name, &select).await
        };
        assert_eq!(told.unwrap(), chosen.len() as u64, "{select:?}");
        let subscription = &mut self.subscriptions[s];
        subscription.dead.retain(|n| !chosen.contains(n));
        for n in chosen {
            let owed = subscription.owed.get_mut(&n).unwrap();
            if redrives {
                (owed.at, owed.deliveries, owed.redriven) = (Where::Ready, 0, true);
            } else {
                owed.at = Where::Done;
            }
        }
    }

    /// Learns which messages have expired by now: a pull that had enough did not look at them.
    async fn learn(&mut self, s: usize) {
        let letters = self.bus.dead(&self.subscriptions[s].name).await;
        let subscription = &mut self.subscriptions[s];
        for letter in letters {
            let n = self.numbers[&letter.message.id];
            let owed = subscription
                .owed
                .get_mut(&n)
                .unwrap_or_else(|| panic!("{n} is none of {}'s: {letter:?}", subscription.name));
            if owed.at == Where::Expiring {
                owed.at = Where::Dead("expired".to_owned());
                subscription.dead.push(n);
            }
        }
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
                subscription.count(|at| matches!(at, Where::Held(..))),
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
    let bus = Bus::with(hot, TopicPatch { shards: Some(shards), ..TopicPatch::default() }).await;
    // No lock ends meanwhile, however long it takes.
    let patch = SubscriptionPatch { max_deliveries: Some(LIMIT), visibility_ms: Some(3_600_000), ..calm() };
    let filter = Some(Some(chronos_db::json!({ "headers.parity": "0" })));
    let mut subscriptions = Vec::new();
    for (name, even_only) in [("all", false), ("even", true), ("more", false)] {
        let filter = if even_only { filter.clone() } else { None };
        let name = bus.subscribe_with(name, SubscriptionPatch { filter, ..patch.clone() }).await;
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
