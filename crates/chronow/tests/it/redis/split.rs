//! What is asked of a slot of which some keys are on its old node and some on its new one: a script does all
//! that it does, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::time::Duration;

use bytes::Bytes;
use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{
    Delivery, HotTier, KeyValueStore, MessageStore, OutboundMessage, Precondition, Select, Settle,
    SettleAndStart, Settled, SubscriptionPatch, TopicPatch,
};
use chronow::{Error, Result, Scope, SubscriptionName, TopicName};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use test_support::{RedisCluster, RedisServer};

use super::moving::Move;
use super::{World, keyed, message, texts};

const HOUR: Duration = Duration::from_secs(3_600);
/// What a shard with subscriptions has in use here beside its stream.
const SHARD: [&str; 12] = [
    "meta",
    "floors",
    "held",
    "held-order",
    "held-refs",
    "scheduled",
    "scheduled-messages",
    "scheduled-ids",
    "dedup",
    "dedup-at",
    "waiting",
    "idle",
];
const SUBSCRIPTION: [&str; 11] = [
    "config",
    "messages",
    "order",
    "locks",
    "retry",
    "blocked",
    "deferred",
    "keys",
    "dlq",
    "dlq-order",
    "stats",
];

/// A topic of which every key is there, so that a node that has not given any away could begin every script.
struct Full {
    topic: TopicName,
    sub: SubscriptionName,
    /// Of the subscription: what is locked and at work, deferred, dead.
    locked: Delivery,
    deferred: String,
    dead: String,
    scheduled: String,
    slot_key: String,
}

impl Full {
    /// With subscriptions that delete themselves, or without, which have one key less.
    async fn new(world: &World, name: &str, auto_delete: bool) -> Self {
        let topic = world.topic(name, TopicPatch::default()).await;
        let hour = Duration::from_millis(3_600_000);
        let mut patch = SubscriptionPatch::default().visibility(hour);
        if auto_delete {
            patch = patch.auto_delete(Some(hour));
        }
        let sub = world.sub(&topic, "s", patch.clone()).await;
        let other = world.sub(&topic, "t", patch).await;
        let plain = ["locked", "deferred", "dead", "late"].map(message);
        let queued = ["first", "second"].map(|text| keyed("k", text));
        let once = OutboundMessage { dedup_id: Some("once".to_owned()), ..message("once") };
        world.hot.publish(&topic, plain.into_iter().chain(queued).chain([once]).collect()).await.unwrap();
        let later = OutboundMessage {
            not_before: Some(world.hot.now().await.unwrap().plus_millis(3_600_000)),
            ..message("scheduled")
        };
        let scheduled = world.hot.publish(&topic, vec![later]).await.unwrap().remove(0).id;
        let mut kept = None;
        for sub in [&sub, &other] {
            let pulled = world.pull(sub, 6).await;
            assert_eq!(texts(&pulled), ["dead", "deferred", "first", "late", "locked", "once"]);
            let of =
                |text: &str| pulled.iter().find(|delivery| delivery.message.payload == text).unwrap().clone();
            assert!(world.start(sub, &of("locked").lock).await);
            world.settle(sub, &of("deferred").lock, Settle::Defer).await;
            world.settle(sub, &of("dead").lock, Settle::DeadLetter { reason: "no use".to_owned() }).await;
            world
                .settle(
                    sub,
                    &of("late").lock,
                    Settle::Retry { delay: Some(HOUR), reason: "not now".to_owned() },
                )
                .await;
            kept.get_or_insert((of("locked"), of("deferred").lock.id, of("dead").lock.id));
        }
        let (locked, deferred, dead) = kept.unwrap();
        let slot_key = format!("cw:{{{}:ns:topic:{name}}}", world.scope.tenant());
        Self { topic, sub, locked, deferred, dead, scheduled, slot_key }
    }

    /// What publishers and consumers do, and those who look.
    fn everyday<'a>(&'a self, hot: &'a RedisHot) -> Vec<(&'static str, Work<'a>)> {
        let (topic, sub) = (&self.topic, &self.sub);
        let settle = |settle| SettleAndStart {
            settle: vec![(self.locked.lock.clone(), settle)],
            ..SettleAndStart::default()
        };
        let dead = Settle::DeadLetter { reason: "no use".to_owned() };
        let start = SettleAndStart { start: vec![self.locked.lock.clone()], ..SettleAndStart::default() };
        let twice = vec![
            message("twice"),
            OutboundMessage { dedup_id: Some("twice".to_owned()), ..message("twice") },
        ];
        vec![
            ("publish", said(hot.publish(topic, vec![message("new")]))),
            ("publish with a dedup id", said(hot.publish(topic, twice))),
            (
                "publish_replicated",
                said(hot.publish_replicated(topic, vec![message("new")], 0, Duration::from_secs(1))),
            ),
            ("cancel", said(hot.cancel(topic, &self.scheduled))),
            ("pull", said(hot.pull(sub, 10))),
            ("ack", said(hot.settle_and_start(sub, settle(Settle::Ack)))),
            ("retry", said(hot.settle_and_start(sub, settle(super::retry("again"))))),
            ("dead letter", said(hot.settle_and_start(sub, settle(dead)))),
            ("start", said(hot.settle_and_start(sub, start))),
            ("renew", said(hot.renew(sub, vec![self.locked.lock.clone()]))),
            ("fetch_deferred", said(hot.fetch_deferred(sub, vec![self.deferred.clone()]))),
            ("needed_by_others", said(hot.needed_by_others(sub, from_ref(&self.locked.lock.id)))),
            ("wait", said(hot.wait(sub, Duration::from_millis(50)))),
            ("dead_letters", said(hot.dead_letters(sub, None, 10))),
            ("dead_letters_by_id", said(hot.dead_letters_by_id(sub, from_ref(&self.dead)))),
            ("peek", said(hot.peek(sub, 10))),
            ("stats", said(hot.stats(topic))),
        ]
    }

    /// That, and what is done to a topic and its subscriptions.
    fn everything<'a>(&'a self, hot: &'a RedisHot) -> Vec<(&'static str, Work<'a>)> {
        let (topic, sub) = (&self.topic, &self.sub);
        let again = message("again").stored("1-100000".to_owned(), self.locked.message.published_at);
        let patch = SubscriptionPatch::default().max_deliveries(9);
        let new = SubscriptionName::new(topic, "new").unwrap();
        let rarely = [
            ("replay", said(hot.replay(sub, vec![again]))),
            ("ensure_subscription", said(async move { hot.ensure_subscription(sub, &patch).await })),
            (
                "ensure_subscription of a new one",
                said(async move { hot.ensure_subscription(&new, &SubscriptionPatch::default()).await }),
            ),
            (
                "ensure_topic",
                said(async move { hot.ensure_topic(topic, &TopicPatch::default().max_len(99)).await }),
            ),
            ("redrive", said(async move { hot.redrive(sub, &Select::Ids(vec![self.dead.clone()])).await })),
            ("purge_dead_letters", said(hot.purge_dead_letters(sub, &Select::All))),
            ("purge", said(hot.purge(topic))),
            ("delete_subscription", said(hot.delete_subscription(sub))),
            ("delete_topic", said(hot.delete_topic(topic))),
        ];
        self.everyday(hot).into_iter().chain(rarely).collect()
    }
}

type Work<'a> = BoxFuture<'a, Result<String>>;

fn said<'a, T: std::fmt::Debug>(
    work: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<String>> {
    async move { work.await.map(|answer| format!("{answer:?}")) }.boxed()
}

/// What the nodes hold of a slot, wherever it is, in words that do not depend on how it is kept.
async fn contents(step: &Move<'_>) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for node in [step.from, step.to] {
        let client = redis::Client::open(node.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for key in node.run(&["CLUSTER", "GETKEYSINSLOT", &step.slot, "1000"]).await.lines() {
            let kind = asked(&mut connection, &["TYPE", key]).await;
            let words: &[&str] = match format!("{kind:?}") {
                kind if kind.contains("hash") => &["HGETALL", key],
                kind if kind.contains("zset") => &["ZRANGE", key, "0", "-1", "WITHSCORES"],
                kind if kind.contains("stream") => &["XRANGE", key, "-", "+"],
                kind => panic!("{key} is a {kind}"),
            };
            let redis::Value::Array(items) = asked(&mut connection, words).await else {
                panic!("{words:?} answers with a list")
            };
            // A hash has its pairs in no order.
            let mut pairs: Vec<String> = items.chunks(2).map(|pair| format!("{pair:?}")).collect();
            pairs.sort();
            assert!(all.insert(key.to_owned(), pairs).is_none(), "{key} is on both nodes");
        }
    }
    all
}

/// A node answers for a key of a slot that comes to it only if it is asked so.
async fn asked(connection: &mut redis::aio::MultiplexedConnection, words: &[&str]) -> redis::Value {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let mut both = redis::pipe();
    both.add_command(redis::cmd("ASKING")).ignore().add_command(command);
    let (answer,): (redis::Value,) = both.query_async(connection).await.unwrap();
    answer
}

/// A client that waits only shortly for a slot to be whole.
async fn hasty(nodes: &RedisCluster) -> RedisHot {
    let config = RedisConfig::cluster(nodes.addresses()).response_timeout(Duration::from_millis(400));
    RedisHot::connect(config).await.unwrap()
}

fn assert_refused(what: &str, answer: &Result<String>) {
    let error: &Error = answer.as_ref().expect_err(what);
    assert!(error.is_retryable() && error.to_string().contains("nothing was changed"), "{what}: {error}");
}

/// How often the nodes refused something because a slot was not whole.
async fn refused(nodes: [&RedisServer; 2]) -> u64 {
    let mut count = 0;
    for node in nodes {
        let said = node.run(&["INFO", "errorstats"]).await;
        let of = |line: &str| {
            line.strip_prefix("errorstat_TRYAGAIN:count=").and_then(|count| count.trim().parse::<u64>().ok())
        };
        count += said.lines().find_map(of).unwrap_or(0);
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_of_which_some_keys_have_moved_does_all_or_nothing_and_goes_on_when_it_is_whole() {
    let nodes = RedisCluster::start(3, 0, &[]).await;
    let world = World::new(RedisConfig::cluster(nodes.addresses()), 1).await;
    for auto_delete in [true, false] {
        let full = Full::new(&world, if auto_delete { "used" } else { "kept" }, auto_delete).await;
        let step = Move::of(&nodes, &full.slot_key).await;
        // A consumer waits, so that its key is there, too. The call that wakes the last one removes it.
        let waiting = {
            let (config, sub) = (RedisConfig::cluster(nodes.addresses()), full.sub.clone());
            tokio::spawn(async move { RedisHot::connect(config).await.unwrap().wait(&sub, HOUR).await })
        };
        let key = |rest: &str| format!("{}:{rest}", full.slot_key);
        step.from.until("a consumer waits", &["EXISTS", &key("waiting")], |answer| answer == "1").await;
        for rest in SHARD.iter().filter(|rest| auto_delete || **rest != "idle") {
            assert_eq!(step.from.run(&["EXISTS", &key(rest)]).await, "1", "{rest}");
        }
        for rest in SUBSCRIPTION {
            assert_eq!(step.from.run(&["EXISTS", &key(&format!("sub:s:{rest}"))]).await, "1", "{rest}");
        }

        let hot = hasty(&nodes).await;
        let all: Vec<String> = step
            .from
            .run(&["CLUSTER", "GETKEYSINSLOT", &step.slot, "1000"])
            .await
            .lines()
            .map(str::to_owned)
            .collect();
        let before = contents(&step).await;
        step.begin().await;
        let halves: Vec<Vec<String>> = vec![
            Vec::new(),
            all.iter().step_by(2).cloned().collect(),
            all.iter().filter(|key| **key != full.slot_key).cloned().collect(),
            all,
        ];
        for moved in halves {
            for key in &moved {
                step.key(key).await;
            }
            let state = moved.len();
            for (what, answer) in
                join_all(full.everything(&hot).into_iter().map(async |(what, work)| (what, work.await))).await
            {
                assert_refused(&format!("{what} with {state} keys moved"), &answer);
            }
            assert_eq!(contents(&step).await, before, "with {state} keys moved");
        }

        // What is asked before the slot is whole is done when it is.
        let patient = RedisHot::connect(RedisConfig::cluster(nodes.addresses())).await.unwrap();
        let had = refused([step.from, step.to]).await;
        let works = full.everyday(&patient);
        let all = works.len() as u64;
        let works = join_all(works.into_iter().map(async |(what, work)| (what, work.await)));
        let end = async {
            while refused([step.from, step.to]).await < had + all {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            step.end().await;
        };
        let ((), answers) = tokio::join!(end, works);
        for (what, answer) in answers {
            assert!(answer.is_ok(), "{what}: {}", answer.unwrap_err());
        }
        waiting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_slot_that_moves_are_read_and_written_wherever_they_are() {
    let nodes = RedisCluster::start(3, 0, &[]).await;
    let hot = hasty(&nodes).await;
    let scope = Scope::new("t", "ns").unwrap();
    let set = async |key: &str, value: &'static str, when| {
        hot.set(&scope, key, Some(Bytes::from_static(value.as_bytes())), "", None, when).await.unwrap()
    };
    let get = async |key: &str| {
        let value = hot.get(&scope, &[key.to_owned()]).await.unwrap().remove(0);
        value.and_then(|value| value.bytes).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    };
    for key in ["{s}gone", "{s}here"] {
        set(key, "1", Precondition::Always).await;
    }
    let step = Move::of(&nodes, "cw:t:ns:sm:{s}gone").await;
    step.begin().await;
    step.key("cw:t:ns:sm:{s}gone").await;
    for key in ["{s}gone", "{s}here", "{s}new"] {
        let had = (key != "{s}new").then(|| "1".to_owned());
        assert_eq!(get(key).await, had, "{key}");
        assert_eq!(set(key, "2", Precondition::Absent).await.is_some(), had.is_none(), "{key}");
        assert_eq!(
            hot.increment(&scope, key, 40, Some(HOUR)).await.unwrap().number,
            if had.is_some() { 41 } else { 42 },
            "{key}"
        );
        assert!(hot.expire(&scope, key, HOUR).await.unwrap(), "{key}");
        assert!(hot.remove(&scope, key).await.unwrap(), "{key}");
        assert_eq!(get(key).await, None, "{key}");
        assert!(set(key, "3", Precondition::Always).await.is_some(), "{key}");
    }
    step.key("cw:t:ns:sm:{s}here").await;
    step.end().await;
    for key in ["{s}gone", "{s}here", "{s}new"] {
        assert_eq!(get(key).await.as_deref(), Some("3"), "{key}");
    }
}

/// Panics if it waits for a shard whose slot is on its way: that would be for a minute.
async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .unwrap_or_else(|_| panic!("`{what}` waits for the moving shard"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_slot_moves_holds_up_no_other_shard() {
    const MESSAGES: usize = 40;
    let nodes = RedisCluster::start(3, 0, &[]).await;
    let config = RedisConfig::cluster(nodes.addresses()).response_timeout(Duration::from_secs(60));
    let world = World::new(config, 4).await;
    for moving in ["", "#2"] {
        let topic =
            world.topic(if moving.is_empty() { "first" } else { "third" }, TopicPatch::default()).await;
        let patch = SubscriptionPatch::default()
            .visibility(Duration::from_millis(3_600_000))
            .auto_delete(Some(Duration::from_millis(3_600_000)));
        let sub = world.sub(&topic, "s", patch).await;
        let sent: BTreeSet<String> = (0..MESSAGES).map(|n| format!("sent {n}")).collect();
        world.publish(&topic, &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let step =
            Move::of(&nodes, &format!("cw:{{{}:ns:topic:{}{moving}}}", world.scope.tenant(), topic.name()))
                .await;
        step.begin().await;

        // Those of the other three come, and can be settled.
        let mut got = Vec::new();
        while got.len() < MESSAGES / 4 * 3 {
            got.extend(in_time("pull", world.hot.pull(&sub, 7)).await.unwrap().deliveries);
        }
        assert_eq!(in_time("pull", world.hot.pull(&sub, 7)).await.unwrap().deliveries, []);
        in_time("wait", world.hot.wait(&sub, HOUR)).await.unwrap();
        let acks = SettleAndStart {
            settle: got.iter().map(|delivery| (delivery.lock.clone(), Settle::Ack)).collect(),
            ..SettleAndStart::default()
        };
        let settled = in_time("advance", world.hot.settle_and_start(&sub, acks)).await.unwrap().settled;
        assert!(settled.iter().all(|settled| *settled == Settled::Done));
        // Of a batch for all shards some messages are accepted, which is said.
        let batch = (0..8).map(|n| message(&n.to_string())).collect();
        let error = hasty(&nodes).await.publish(&topic, batch).await.unwrap_err();
        let in_part = error.to_string().contains("of 8 messages, those of other shards, were accepted");
        let nothing = error.to_string().contains("nothing was changed") && !in_part;
        // Shards are asked in their order.
        assert!(error.is_retryable() && if moving.is_empty() { nothing } else { in_part }, "{error}");

        for key in step.from.run(&["CLUSTER", "GETKEYSINSLOT", &step.slot, "1000"]).await.lines() {
            step.key(key).await;
        }
        step.end().await;
        let mut all: BTreeSet<String> = texts(&got).into_iter().collect();
        while !sent.is_subset(&all) {
            all.extend(texts(&world.pull(&sub, 1).await));
        }
    }
}
