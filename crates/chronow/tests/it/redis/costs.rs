//! What things cost the server, counted in its commands: the same whatever else exists. Each test has a
//! server of its own, which nobody else asks.

use std::sync::Arc;
use std::time::Duration;

use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{Delivery, MessageStore, Settle, SettleAndStart, SubscriptionPatch, TopicPatch};
use chronow::{Scope, SubscriptionName, TopicName};
use futures::future::join_all;
use test_support::RedisServer;

use super::{keyed, message, with_header};
use crate::tiers::until;

/// Times each thing is done, to even out what happens now and then.
const TIMES: u64 = 128;

struct World {
    server: RedisServer,
    hot: Arc<RedisHot>,
    topic: TopicName,
}

/// Calls of commands per time, those that scripts made included, and microseconds in scripts.
#[derive(Clone, Copy, Debug)]
struct Cost {
    commands: f64,
    micros: f64,
}

impl Cost {
    /// Both with a wide margin: a count may differ by what happens now and then, the time is that of a busy
    /// machine.
    fn is_like(self, small: Self) -> bool {
        self.commands <= 1.3 * small.commands + 4.0 && self.micros <= 20.0 * small.micros + 2_000.0
    }
}

impl World {
    async fn new() -> Self {
        let server = RedisServer::start(&[]).await;
        let hot = Arc::new(RedisHot::connect(RedisConfig::single(server.url())).await.unwrap());
        let topic = TopicName::new(&Scope::new("t", "ns").unwrap(), "orders").unwrap();
        let world = Self { server, hot, topic };
        world.make(&world.topic).await;
        world
    }

    async fn make(&self, topic: &TopicName) {
        let patch = TopicPatch::default().max_len(10_000_000);
        self.hot.ensure_topic(topic, &patch).await.unwrap();
    }

    fn named(&self, name: &str) -> SubscriptionName {
        SubscriptionName::new(&self.topic, name).unwrap()
    }

    async fn sub(&self, name: &str) -> SubscriptionName {
        let patch = SubscriptionPatch::default().visibility(Duration::from_millis(3_600_000));
        self.hot.ensure_subscription(&self.named(name), &patch).await.unwrap();
        self.named(name)
    }

    async fn publish(&self, count: usize) {
        for first in (0..count).step_by(5_000) {
            let batch = (first..count.min(first + 5_000)).map(|_| message("x")).collect();
            self.hot.publish(&self.topic, batch).await.unwrap();
        }
    }

    async fn pull(&self, sub: &SubscriptionName, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            let most = u32::try_from((count - all.len()).min(1_000)).unwrap();
            all.extend(self.hot.pull(sub, most).await.unwrap().deliveries);
        }
        all
    }

    async fn cost(&self, times: u64, work: impl AsyncFn()) -> Cost {
        self.server.run(&["CONFIG", "RESETSTAT"]).await;
        for _ in 0..times {
            work().await;
        }
        let (mut commands, mut micros) = (0.0, 0.0);
        for line in self.server.run(&["INFO", "commandstats"]).await.lines() {
            let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            if ["info", "config", "ping"].iter().any(|other| name.starts_with(other)) {
                continue;
            }
            let number = |wanted: &str| -> f64 {
                rest.split(',')
                    .find_map(|part| part.strip_prefix(wanted)?.strip_prefix('=')?.parse().ok())
                    .unwrap_or(0.0)
            };
            commands += number("calls");
            if name.starts_with("eval") {
                micros += number("usec");
            }
        }
        Cost { commands: commands / times as f64, micros: micros / times as f64 }
    }

    /// Of everything that is done with one subscription, by name.
    async fn costs(&self, sub: &SubscriptionName) -> Vec<(&'static str, Cost)> {
        let mut costs = Vec::new();
        let publish = async || drop(self.hot.publish(&self.topic, vec![message("x")]).await.unwrap());
        costs.push(("publish", self.cost(TIMES, publish).await));
        let held = std::cell::RefCell::new(Vec::new());
        let pull = async || {
            let got = self.pull(sub, 1).await;
            held.borrow_mut().extend(got);
        };
        costs.push(("pull", self.cost(TIMES, pull).await));
        let lock = held.borrow()[0].lock.clone();
        costs.push((
            "renew",
            self.cost(TIMES, async || drop(self.hot.renew(sub, vec![lock.clone()]).await.unwrap())).await,
        ));
        let settle = async || {
            let lock = held.borrow_mut().pop().unwrap().lock;
            self.hot
                .settle_and_start(
                    sub,
                    SettleAndStart { settle: vec![(lock, Settle::Ack)], start: Vec::new() },
                )
                .await
                .unwrap();
        };
        costs.push(("settle", self.cost(TIMES, settle).await));
        costs.push(("peek", self.cost(TIMES, async || drop(self.hot.peek(sub, 1).await.unwrap())).await));
        costs
    }

    /// Of what is done where there is nothing to do.
    async fn idle_costs(&self, sub: &SubscriptionName) -> Vec<(&'static str, Cost)> {
        let mut costs = Vec::new();
        let pull = async || assert_eq!(self.hot.pull(sub, 10).await.unwrap().deliveries, []);
        costs.push(("empty pull", self.cost(TIMES, pull).await));
        let wait = async || self.hot.wait(sub, Duration::from_millis(1)).await.unwrap();
        costs.push(("wait", self.cost(16, wait).await));
        costs
    }

    async fn stats(&self) -> Cost {
        self.cost(8, async || drop(self.hot.stats(&self.topic).await.unwrap())).await
    }
}

#[track_caller]
fn alike(what: &str, small: &[(&str, Cost)], large: &[(&str, Cost)]) {
    for ((name, small), (_, large)) in small.iter().zip(large) {
        assert!(large.is_like(*small), "{what}: {name} costs {small:?} and {large:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_the_same_with_ten_and_a_thousand_subscriptions() {
    let mut measured = Vec::new();
    let mut stats = Vec::new();
    let world = World::new().await;
    let mut made = 0;
    for subscriptions in [10, 100, 1_000] {
        join_all((made..subscriptions).map(async |n| world.sub(&format!("s{n}")).await)).await;
        made = subscriptions;
        let sub = world.named("s3");
        let mut costs = world.idle_costs(&sub).await;
        costs.extend(world.costs(&sub).await);
        measured.push(costs);
        stats.push(world.stats().await);
    }
    for (few, many) in [(0, 1), (0, 2)] {
        alike("subscriptions", &measured[few], &measured[many]);
    }
    // These show every subscription.
    assert!(stats[2].commands <= 150.0 * stats[0].commands, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_the_same_with_a_long_backlog_and_many_in_flight() {
    let world = World::new().await;
    let (sub, late) = (world.sub("s").await, world.sub("late").await);
    let mut measured = Vec::new();
    for (backlog, flying) in [(1_000, 1_000), (100_000, 100_000)] {
        world.publish(backlog).await;
        drop(world.pull(&sub, flying).await);
        let mut costs = world.costs(&sub).await;
        // What is in flight is in the way of nobody; the other one has everything to read.
        costs.push(("stats", world.stats().await));
        costs.push((
            "peek at the backlog",
            world.cost(8, async || drop(world.hot.peek(&late, 1).await.unwrap())).await,
        ));
        costs.extend(world.idle_costs(&sub).await);
        // What is refused costs no more either.
        let limit = async |max| {
            world.hot.ensure_topic(&world.topic, &TopicPatch::default().max_len(max)).await.unwrap();
        };
        limit(1).await;
        let refused = async || assert!(world.hot.publish(&world.topic, vec![message("x")]).await.is_err());
        costs.push(("refused publish", world.cost(16, refused).await));
        limit(10_000_000).await;
        measured.push(costs);
    }
    alike("backlog and in flight", &measured[0], &measured[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_wakes_one_of_those_who_wait_however_many_there_are() {
    for waiters in [1_u64, 40, 160] {
        let world = World::new().await;
        let sub = world.sub("s").await;
        let waiting: Vec<_> = (0..waiters)
            .map(|_| {
                let (hot, sub) = (Arc::clone(&world.hot), sub.clone());
                tokio::spawn(async move { hot.wait(&sub, Duration::from_secs(600)).await })
            })
            .collect();
        let key = "cw:{t:ns:topic:orders}:waiting";
        world
            .server
            .until("all wait", &["ZCARD", key], |count| {
                count.parse::<u64>().is_ok_and(|count| count >= waiters)
            })
            .await;
        world.server.run(&["CONFIG", "RESETSTAT"]).await;
        world.publish(1).await;
        let reported = world.server.run(&["INFO", "commandstats"]).await;
        assert!(reported.contains("cmdstat_publish:calls=1,"), "with {waiters} waiters: {reported}");
        // One hears of it at once; what it does not fetch the others see when they look again.
        until("one is woken", || async { waiting.iter().any(tokio::task::JoinHandle::is_finished) }).await;
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_the_same_with_ten_and_a_thousand_topics() {
    let world = World::new().await;
    let sub = world.sub("s").await;
    let mut measured = Vec::new();
    for topics in [10, 1_000] {
        let make = |n| TopicName::new(world.topic.scope(), &format!("other{n}")).unwrap();
        join_all((0..topics).map(async |n| world.make(&make(n)).await)).await;
        let mut costs = world.costs(&sub).await;
        costs.extend(world.idle_costs(&sub).await);
        measured.push(costs);
    }
    alike("topics", &measured[0], &measured[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_the_same_with_one_ordering_key_and_with_many() {
    let mut measured = Vec::new();
    for (keys, messages) in [(1, 200), (1, 10_000), (5_000, 10_000)] {
        let world = World::new().await;
        let sub = world.sub("s").await;
        for first in (0..messages).step_by(2_500) {
            let last = messages.min(first + 2_500);
            world
                .hot
                .publish(&world.topic, (first..last).map(|n| keyed(&format!("k{}", n % keys), "x")).collect())
                .await
                .unwrap();
        }
        // All of them are taken: one of each key is in flight, the others are blocked behind it.
        let mut held = std::collections::VecDeque::new();
        loop {
            let pulled = world.hot.pull(&sub, 1_000).await.unwrap();
            let more = pulled.next_due.is_some_and(|due| due.is_zero());
            held.extend(pulled.deliveries);
            if !more && held.len() >= keys {
                break;
            }
        }
        let held = std::cell::RefCell::new(held);
        let step = async || {
            // Each has another one of its key behind it.
            let lock = held.borrow_mut().pop_front().unwrap().lock;
            world
                .hot
                .settle_and_start(
                    &sub,
                    SettleAndStart { settle: vec![(lock, Settle::Ack)], start: Vec::new() },
                )
                .await
                .unwrap();
            let next = world.pull(&sub, 1).await;
            held.borrow_mut().extend(next);
        };
        let mut costs = vec![("settle and pull", world.cost(TIMES, step).await)];
        costs.push(("peek", world.cost(8, async || drop(world.hot.peek(&sub, 1).await.unwrap())).await));
        costs.push(("stats", world.stats().await));
        measured.push(costs);
    }
    alike("blocked messages", &measured[0], &measured[1]);
    alike("ordering keys", &measured[0], &measured[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_filter_lets_pass_comes_at_once_however_much_it_leaves_out() {
    let world = World::new().await;
    let filter = |filter: chronow::Json| SubscriptionPatch::default().filter(Some(filter));
    let (by_payload, by_header) = (world.named("payload"), world.named("header"));
    world
        .hot
        .ensure_subscription(&by_payload, &filter(chronos_db::json!({ "payload.hit": true })))
        .await
        .unwrap();
    world
        .hot
        .ensure_subscription(&by_header, &filter(chronos_db::json!({ "headers.hit": "yes" })))
        .await
        .unwrap();
    let sent = |hit: bool| {
        with_header(
            "hit",
            if hit { "yes" } else { "no" },
            if hit { r#"{"hit":true}"# } else { r#"{"hit":false}"# },
        )
    };
    world.hot.publish(&world.topic, vec![sent(true)]).await.unwrap();
    for _ in 0..6 {
        world.hot.publish(&world.topic, (0..5_000).map(|_| sent(false)).collect()).await.unwrap();
    }
    world.hot.publish(&world.topic, vec![sent(true)]).await.unwrap();
    for (sub, most) in [(&by_payload, 800.0), (&by_header, 80.0)] {
        // The first one is not held back by what follows.
        let first = world
            .cost(1, async || assert_eq!(world.hot.pull(sub, 10).await.unwrap().deliveries.len(), 1))
            .await;
        assert!(first.commands < 100.0, "{first:?}");
        let left = world.hot.stats(&world.topic).await.unwrap();
        assert!(
            left.subscriptions
                .iter()
                .any(|counts| counts.subscription == sub.name() && counts.backlog > 20_000),
            "{left:?}"
        );
        // The rest is left out in steps, each of which ends soon.
        let scripts = std::cell::Cell::new(0);
        let rest = world.cost(1, async || {
            let mut came = 0;
            while came == 0 {
                let pulled = world.hot.pull(sub, 10).await.unwrap();
                assert!(!pulled.deliveries.is_empty() || pulled.next_due == Some(Duration::ZERO));
                came += pulled.deliveries.len();
                scripts.set(scripts.get() + 1);
            }
        });
        let rest = rest.await;
        assert!(rest.commands < most * 20.0, "{rest:?} in {} pulls", scripts.get());
        let locked = world.hot.stats(&world.topic).await.unwrap();
        assert!(locked.subscriptions.iter().all(|counts| counts.pending <= 2), "{locked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_costs_the_same_however_many_processes_make_copies() {
    const MESSAGES: u64 = 100;
    for processes in [1, 24] {
        let server = RedisServer::start(&[]).await;
        let stores = crate::stores::Stores::on_redis(&server.url(), crate::stores::warm(|builder| builder));
        let all = join_all((0..processes).map(|_| stores.connect())).await;
        for process in &all {
            process.bus().topic("orders").unwrap().ensure().warm(true).await.unwrap();
        }
        let topic = all[0].bus().topic("orders").unwrap();
        let copies = stores.chronos.messaging("default").unwrap().messages();
        let publish = async || {
            let id = topic.publish(&1).await.unwrap().id;
            until("the copy is made", || async {
                copies.get("orders", id.as_str()).await.unwrap().is_some()
            })
            .await;
        };
        publish().await;
        server.run(&["CONFIG", "RESETSTAT"]).await;
        let begun = std::time::Instant::now();
        for _ in 0..MESSAGES {
            publish().await;
        }
        let stats = server.run(&["INFO", "commandstats"]).await;
        let calls = stats.lines().find_map(|line| {
            line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u64>().ok()
        });
        // Each process looks by itself now and then, whatever is published.
        let looks = processes * 4 * (begun.elapsed().as_secs() + 1);
        let scripts = calls.unwrap().saturating_sub(looks);
        assert!(
            scripts <= 8 * MESSAGES,
            "{processes} processes: {scripts} scripts for {MESSAGES} messages, beside {looks} looks"
        );
        join_all(all.iter().map(chronow::Chronow::close)).await;
    }
}
