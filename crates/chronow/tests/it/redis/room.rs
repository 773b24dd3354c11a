//! Servers and topics that are full, many ids in one moment, and the shape that earlier versions left.

use std::time::{Duration, Instant};

use chronow::hot::redis::RedisConfig;
use chronow::hot::{
    DiscardPolicy, HotTier, MessageStore, OutboundMessage, Settle, SettleAndStart, Settled,
    SubscriptionPatch, TopicPatch,
};
use chronow::{ErrorKind, Page};
use test_support::{RedisServer, servers};

use super::{World, everywhere, keyed, message, retry, texts};
use crate::tiers::TIMEOUT;

/// A connection of the test's own to the shared server.
async fn raw() -> ::redis::aio::MultiplexedConnection {
    ::redis::Client::open(servers::redis_url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_lets_retries_schedules_locks_and_renewals_go_on() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let world = World::new(RedisConfig::single(server.url()), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let long = SubscriptionPatch::default().visibility(Duration::from_millis(120_000));
    let sub = world.sub(&topic, "s", long).await;
    let paused = |paused| SubscriptionPatch::default().paused(paused);
    let waits = world.sub(&topic, "waits", paused(true)).await;
    let soon = world.hot.now().await.unwrap().plus_millis(300);
    world
        .hot
        .publish(&topic, vec![OutboundMessage { not_before: Some(soon), ..message("due") }])
        .await
        .unwrap();
    world.publish(&topic, &["lost", "retried", "deferred", "renewed", "dead"]).await;
    let held = world.pull(&sub, 5).await;
    world.settle(&sub, &held[2].lock, Settle::Defer).await;
    let big: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "x".repeat(1_000))).collect();
    world.publish(&topic, &big.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.let_end(&sub, &held[..1]).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    server.run(&["CONFIG", "SET", "maxmemory", "1000000"]).await;
    assert!(server.run(&["SET", "probe", "x"]).await.contains("OOM"));
    let refused = world.hot.publish(&topic, vec![message("no")]).await.unwrap_err();
    assert!(refused.is_retryable() && refused.to_string().contains("nothing was changed"), "{refused}");

    // Everything that drains goes on.
    let renewed = world
        .hot
        .renew(&sub, held[1..2].iter().chain(&held[3..]).map(|held| held.lock.clone()).collect())
        .await
        .unwrap();
    assert_eq!(renewed, [true; 3]);
    assert!(world.start(&sub, &held[1].lock).await);
    assert_eq!(world.settle(&sub, &held[1].lock, retry("again")).await, Settled::Done);
    assert_eq!(
        world.settle(&sub, &held[4].lock, Settle::DeadLetter { reason: "bad".to_owned() }).await,
        Settled::Done
    );
    assert_eq!(world.hot.fetch_deferred(&sub, vec![held[2].lock.id.clone()]).await.unwrap().len(), 1);
    let came = world.pull(&sub, 103).await;
    let expected: Vec<String> =
        ["due", "lost", "retried"].map(str::to_owned).into_iter().chain(big.clone()).collect();
    assert_eq!(texts(&came), {
        let mut all = expected;
        all.sort();
        all
    });
    assert!(world.hot.dead_letters(&sub, None, 10).await.unwrap().items.len() == 1);
    world.hot.wait(&sub, Duration::from_millis(10)).await.unwrap();
    world.hot.ensure_subscription(&waits, &paused(false)).await.unwrap();
    world.hot.ensure_topic(&topic, &TopicPatch::default()).await.unwrap();
    let all = world.pull(&waits, 106).await;
    for (sub, held) in [(&sub, &came), (&waits, &all)] {
        let settle: Vec<_> = held.iter().map(|held| (held.lock.clone(), Settle::Ack)).collect();
        let settled = world
            .hot
            .settle_and_start(sub, SettleAndStart { settle, start: Vec::new() })
            .await
            .unwrap()
            .settled;
        assert!(settled.iter().all(|settled| *settled == Settled::Done));
    }
    assert!(world.hot.delete_subscription(&waits).await.unwrap());
    world.hot.purge(&topic).await.unwrap();
    assert!(world.hot.delete_topic(&topic).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_of_one_moment_come_in_their_order() {
    let world = World::single().await;
    // A clock that is behind what it was, as after a failover: every id is of the same moment, or of the one
    // that begins when its numbers are used up.
    let behind = world.hot.now().await.unwrap().as_millis() + 600_000;
    for (name, last) in
        [("new", None), ("earlier", Some("4090")), ("full", Some("999990")), ("long", Some("104090"))]
    {
        let topic = world.topic(name, TopicPatch::default()).await;
        let sub = world
            .sub(&topic, "s", SubscriptionPatch::default().visibility(Duration::from_millis(600_000)))
            .await;
        if let Some(last) = last {
            let meta = format!("cw:{{{}:ns:topic:{name}}}:meta", world.scope.tenant());
            let () = ::redis::cmd("HSET")
                .arg(meta)
                .arg("last")
                .arg(format!("{behind}-{last}"))
                .query_async(&mut raw().await)
                .await
                .unwrap();
        }
        let mut ids = Vec::new();
        for first in (0..40).step_by(8) {
            let sent = (first..first + 8).map(|n| keyed("k", &n.to_string())).collect();
            ids.extend(
                world.hot.publish(&topic, sent).await.unwrap().into_iter().map(|published| published.id),
            );
        }
        assert!(ids.is_sorted_by(|a, b| a < b), "{name}: {ids:?}");
        // Those behind the first are put aside by a pull for more.
        world.nothing_but(&sub, "0").await;
        for n in 1..40 {
            let got = world.pull(&sub, 1).await.remove(0);
            assert_eq!(got.message.payload, n.to_string().as_bytes(), "{name}: number {n}");
            world.settle(&sub, &got.lock, Settle::Ack).await;
        }
        let many = (0..10_000).map(|n| keyed("k", &n.to_string())).collect();
        let more: Vec<String> = world
            .hot
            .publish(&topic, many)
            .await
            .unwrap()
            .into_iter()
            .map(|published| published.id)
            .collect();
        assert!(more.is_sorted_by(|a, b| a < b) && ids.last() < more.first(), "{name}");
    }
}

everywhere! {
    async fn a_publish_that_is_refused_drops_nothing(world: World) {
        let patch = TopicPatch::default().max_len(10).overflow(DiscardPolicy::DropOldest).shards(1);
        let topic = world.name("t");
        world.hot.ensure_topic(&topic, &patch).await.unwrap();
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let far = world.hot.now().await.unwrap().plus_millis(3_600_000);
        let later = |n: usize| OutboundMessage { not_before: Some(far), dedup_id: Some(format!("{n}")), ..message(&format!("later {n}")) };
        world.hot.publish(&topic, (0..9).map(later).collect()).await.unwrap();
        world.publish(&topic, &["waiting"]).await;
        // The first needs no room; for the other two there is none, whatever is dropped.
        let error = world.hot.publish(&topic, vec![later(0), message("new 1"), message("new 2")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(world.hot.stats(&topic).await.unwrap().dropped, 0);
        world.publish(&topic, &["new"]).await;
        assert_eq!(world.hot.stats(&topic).await.unwrap().dropped, 1);
        assert_eq!(texts(&world.pull(&sub, 1).await), ["new"]);
    }

    async fn large_messages_come_and_go_in_bounded_steps(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let patch = |ms| SubscriptionPatch::default().visibility(Duration::from_millis(ms)).backoff([Duration::ZERO]);
        let sub = world.sub(&topic, "s", patch(120_000)).await;
        let large = "x".repeat(300_000);
        for _ in 0..4 {
            world.hot.publish(&topic, (0..10).map(|n| keyed(&format!("k{n}"), &format!("{n}{large}"))).collect()).await.unwrap();
        }
        let first = world.hot.pull(&sub, 1_000).await.unwrap();
        let bytes: usize = first.deliveries.iter().map(|delivery| delivery.message.payload.len()).sum();
        assert!(bytes <= 3 * (5 << 20) && first.next_due.is_some_and(|due| due.is_zero()), "{bytes} bytes came at once");
        let mut held = first.deliveries;
        held.extend(world.pull(&sub, 10 - held.len().min(10)).await);
        let settle = held.iter().map(|held| (held.lock.clone(), Settle::DeadLetter { reason: "x".to_owned() })).collect();
        let settled = world.hot.settle_and_start(&sub, SettleAndStart { settle, start: Vec::new() }).await.unwrap().settled;
        assert!(settled.iter().all(|settled| *settled == Settled::Done), "{settled:?}");
        let (mut after, mut listed) = (None, 0);
        let begun = Instant::now();
        loop {
            let Page { items: page, next, .. } = world.hot.dead_letters(&sub, after.as_deref(), 100).await.unwrap();
            listed += page.len();
            after = next;
            if after.is_none() || begun.elapsed() > TIMEOUT {
                break;
            }
        }
        assert_eq!(listed, held.len());
        assert_eq!(world.hot.redrive(&sub, &chronow::hot::Select::All).await.unwrap(), held.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_left_is_brought_to_the_new_shape_by_the_first_caller() {
    let world = World::single().await;
    let topic = world.name("old");
    let stream = format!("cw:{{{}:ns:topic:old}}", world.scope.tenant());
    let mut raw = raw().await;
    let now = i64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    let (ms, later) = (now - 1_000, now + 600_000);
    let id = |n: i64| format!("{ms}-{n}");
    // `payload` and the name of the message, as MessagePack.
    let body = |name: &str, key: bool| {
        let mut bytes = vec![if key { 0x94 } else { 0x92 }];
        for text in ["payload", name]
            .into_iter()
            .chain(if key { ["key", "k"].as_slice() } else { &[] }.iter().copied())
        {
            bytes.push(0xa0 | u8::try_from(text.len()).unwrap());
            bytes.extend(text.bytes());
        }
        bytes
    };
    let options =
        r#"{"shards":1,"maxLen":100,"overflow":"reject","ttlMs":null,"dedupWindowMs":600000,"warm":false}"#;
    let sub_options = r#"{"visibilityMs":60000,"maxDeliveries":5,"backoffMs":[0],"jitterPercent":0,"deadLetters":true,"start":"new","filter":null,"autoDeleteMs":null,"paused":false}"#;
    let mut put = ::redis::pipe();
    put.cmd("SADD").arg(format!("cw:{}:ns:topics", world.scope.tenant())).arg("old");
    put.cmd("HSET")
        .arg(format!("{stream}:meta"))
        .arg(&["options", options, "shards", "1", "max", "100", "overflow", "reject"]);
    put.cmd("HSET").arg(format!("{stream}:meta")).arg(&[
        "ttl",
        "",
        "dedup",
        "600000",
        "last",
        &id(9),
        "mark",
        "0-0",
        "marked",
        "1",
    ]);
    put.cmd("SADD").arg(format!("{stream}:subs")).arg("s");
    put.cmd("XGROUP").arg("CREATE").arg(&stream).arg("sub:s").arg("$").arg("MKSTREAM");
    for n in 3..=7 {
        put.cmd("XADD").arg(&stream).arg(id(n)).arg("payload").arg(
            ["", "", "", "in flight", "first", "second", "unread", "unread"][usize::try_from(n).unwrap()],
        );
        if n == 4 || n == 5 {
            // Of one key.
            put.cmd("XDEL").arg(&stream).arg(id(n));
        }
    }
    put.cmd("XGROUP").arg("SETID").arg(&stream).arg("sub:s").arg(id(5));
    let sub = |rest: &str| format!("{stream}:sub:s:{rest}");
    put.cmd("HSET").arg(sub("config")).arg(&[
        "options",
        sub_options,
        "visibility",
        "60000",
        "deliveries",
        "5",
        "backoff",
        "0",
        "jitter",
        "0",
        "dlq",
        "1",
    ]);
    put.cmd("HSET")
        .arg(sub("config"))
        .arg(&["auto", "", "paused", "0", "filter", "", "version", "1", "begin", "0-0", "seen", "1"]);
    put.cmd("HSET").arg(sub("messages")).arg(&[
        &id(3),
        &format!("tok|{later}|1||"),
        &id(1),
        "|0|2|h|",
        &id(4),
        "|0|0|h|k",
        &id(5),
        "|0|0|h|k",
    ]);
    put.cmd("ZADD").arg(sub("locks")).arg(later).arg(id(3));
    put.cmd("ZADD").arg(sub("retry")).arg(1).arg(id(1)).arg(1).arg(id(4));
    put.cmd("HSET").arg(sub("keys")).arg("k").arg(id(4));
    put.cmd("ZADD").arg(sub("blocked")).arg(0).arg(format!(
        "1:k:{:026.8}:{}",
        ms as f64 + 5.0 / 4096.0,
        id(5)
    ));
    put.cmd("HSET").arg(sub("stats")).arg(&["deliveries", "3", "acked", "1"]);
    put.cmd("HSET")
        .arg(format!("{stream}:held"))
        .arg(id(1))
        .arg(body("retried", false))
        .arg(id(4))
        .arg(body("first", true))
        .arg(id(5))
        .arg(body("second", true));
    for n in [1, 4, 5] {
        put.cmd("ZADD")
            .arg(format!("{stream}:held-order"))
            .arg(format!("{:.4}", ms as f64 + n as f64 / 4096.0))
            .arg(id(n));
    }
    put.cmd("ZADD").arg(format!("{stream}:scheduled")).arg(later).arg(id(8));
    put.cmd("HSET").arg(format!("{stream}:scheduled-messages")).arg(id(8)).arg(body("later", false));
    put.cmd("SET").arg(format!("{stream}:waiting")).arg("1").arg("PX").arg(60_000);
    let () = put.query_async(&mut raw).await.unwrap();

    let stats = world.hot.stats(&topic).await.unwrap();
    let s = &stats.subscriptions[0];
    assert_eq!(
        (s.backlog, s.pending, s.scheduled, s.deliveries, s.acked),
        (2 + 2 + 1, 1, 1, 3, 1),
        "{stats:?}"
    );
    assert_eq!(stats.length, 7, "{stats:?}");
    let sub = chronow::SubscriptionName::new(&topic, "s").unwrap();
    // A lock that an earlier version gave is worth what it was.
    let lock = chronow::hot::Lock { id: id(3), token: format!("tok.{}", id(3)) };
    assert_eq!(world.settle(&sub, &lock, Settle::Ack).await, Settled::Done);
    world.publish(&topic, &["new"]).await;
    let got = world.pull(&sub, 5).await;
    assert_eq!(texts(&got), ["first", "new", "retried", "unread", "unread"]);
    for held in &got {
        assert_eq!(world.settle(&sub, &held.lock, Settle::Ack).await, Settled::Done);
    }
    let second = world.pull(&sub, 1).await.remove(0);
    assert_eq!(texts(std::slice::from_ref(&second)), ["second"]);
    assert_eq!(world.settle(&sub, &second.lock, Settle::Ack).await, Settled::Done);
    let stats = world.hot.stats(&topic).await.unwrap();
    assert_eq!(
        (stats.length, stats.subscriptions[0].scheduled, stats.subscriptions[0].acked),
        (1, 1, 8),
        "{stats:?}"
    );
    assert!(world.hot.delete_topic(&topic).await.unwrap());
    let left: Vec<String> =
        ::redis::cmd("KEYS").arg(format!("*{}*", world.scope.tenant())).query_async(&mut raw).await.unwrap();
    assert_eq!(left, Vec::<String>::new());
}
