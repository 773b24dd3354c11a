//! What a caller sees when servers fail, refuse or are replaced.

use std::time::{Duration, Instant};

use chronow::ErrorKind;
use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{
    HotTier, KeyValueStore, MessageStore, Precondition, Settle, Settled, SubscriptionPatch, TopicPatch,
};
use futures::StreamExt;
use test_support::{Proxy, RedisServer, SilentPort, servers};

use super::{World, message, texts};
use crate::tiers::{TIMEOUT, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_comes_back_and_waiting_goes_on() {
    let proxy = Proxy::in_front_of(&servers::redis_url()).await;
    let world = World::new(RedisConfig::single(proxy.uri()), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub =
        world.sub(&topic, "s", SubscriptionPatch::default().visibility(Duration::from_millis(600_000))).await;
    let mut changes = world.hot.watch(&world.scope, "").await.unwrap();
    world.publish(&topic, &["a"]).await;
    let got = world.pull(&sub, 1).await.remove(0);
    proxy.drop_connections();
    let begin = Instant::now();
    let error = loop {
        // Every failure is one a caller may repeat.
        match world
            .hot
            .settle_and_start(
                &sub,
                chronow::hot::SettleAndStart { settle: vec![(got.lock.clone(), Settle::Ack)], start: vec![] },
            )
            .await
        {
            Ok(outcome) => {
                assert_eq!(outcome.settled, [Settled::Done]);
                break None;
            }
            Err(error) if begin.elapsed() > TIMEOUT => break Some(error),
            Err(error) => assert!(error.is_retryable() && error.kind() == ErrorKind::HotTier, "{error}"),
        }
    };
    assert!(error.is_none(), "{error:?}");
    // The watcher learns that it may have missed something, and gets what comes after.
    let interrupted = within(changes.next()).await.unwrap();
    assert!(interrupted.is_err_and(|error| error.is_retryable()));
    let heard = async {
        loop {
            if let Some(Ok(change)) = changes.next().await {
                break change;
            }
        }
    };
    let tell = async {
        loop {
            world.hot.set(&world.scope, "k", Some("x".into()), "", None, Precondition::Always).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        change = heard => assert_eq!(change.key, "k"),
        () = tell => unreachable!("it never ends"),
        () = tokio::time::sleep(TIMEOUT) => panic!("the watcher heard nothing after the connection was back"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_is_said_so_in_one_line() {
    let proxy = Proxy::in_front_of(&servers::redis_url()).await;
    let impatient = RedisConfig::single(proxy.uri()).response_timeout(Duration::from_secs(5));
    let world = World::new(impatient, 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    proxy.stall();
    let error = world.hot.publish(&topic, vec![message("a")]).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("may have taken place"), "{error}");
    assert!(!error.to_string().contains('\n'));
    proxy.restore();
}

#[tokio::test]
async fn an_unreachable_or_refusing_server_is_said_so_without_the_password() {
    let nobody = SilentPort::take();
    let error = RedisHot::connect(RedisConfig::single(format!("redis://u:s3cret@{}", nobody.address())))
        .await
        .unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("cannot be reached"), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));

    let server = RedisServer::start(&["--requirepass", "right"]).await;
    let error =
        RedisHot::connect(RedisConfig::single(server.url().replace("://", "://:s3cret@"))).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("password"), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    let error = RedisHot::connect(RedisConfig::single(server.url())).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("password"), "{error}");
    let config = RedisConfig::single(server.url()).password("right");
    let said = RedisHot::connect(config).await.unwrap().ping().await.unwrap();
    assert!(said.contains("noeviction") && said.contains("append-only file off"), "{said}");
}

#[tokio::test]
async fn a_full_server_refuses_and_consuming_makes_room() {
    let server = RedisServer::start(&["--maxmemory", "6mb", "--maxmemory-policy", "noeviction"]).await;
    let world = World::new(RedisConfig::single(server.url()), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
    let big = "x".repeat(100_000);
    let mut accepted = 0;
    let error = loop {
        match world.hot.publish(&topic, vec![message(&big)]).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000);
    };
    assert!(error.is_retryable() && error.to_string().contains("Redis is full"), "{error}");
    // Everything that was accepted can be consumed although the server is full.
    for _ in 0..accepted {
        let got = world.pull(&sub, 1).await.remove(0);
        assert_eq!(world.settle(&sub, &got.lock, Settle::Ack).await, Settled::Done);
    }
    assert_eq!(world.hot.stats(&topic).await.unwrap().length, 0);
    let begin = Instant::now();
    while world.hot.publish(&topic, vec![message(&big)]).await.is_err() {
        assert!(begin.elapsed() < TIMEOUT);
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let server = RedisServer::start(&[]).await;
    let world = World::new(RedisConfig::single(server.url()), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
    world.publish(&topic, &["a"]).await;
    server.run(&["SCRIPT", "FLUSH"]).await;
    world.publish(&topic, &["b"]).await;
    assert_eq!(texts(&world.pull(&sub, 2).await), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinel_moves_everything_to_the_new_master() {
    let master = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
    let sentinel = RedisServer::sentinel(master.port()).await;
    let port = replica.port().to_string();
    sentinel
        .until("the sentinel knows the replica", &["SENTINEL", "REPLICAS", "main"], |answer| {
            answer.contains(&port)
        })
        .await;
    master
        .until("the replica follows", &["INFO", "replication"], |answer| answer.contains("state=online"))
        .await;
    let world =
        World::new(RedisConfig::sentinel([format!("127.0.0.1:{}", sentinel.port())], "main"), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub =
        world.sub(&topic, "s", SubscriptionPatch::default().visibility(Duration::from_millis(600_000))).await;
    world.publish(&topic, &["a", "b"]).await;
    let got = world.pull(&sub, 1).await.remove(0);
    replica.has_all_of(&master).await;
    // It has to have asked the replica how it does, too, before it takes it for a good one.
    sentinel.until("the failover begins", &["SENTINEL", "FAILOVER", "main"], |answer| answer == "OK").await;
    replica.until("the replica is promoted", &["ROLE"], |answer| answer.starts_with("master")).await;
    master.until("the old master follows", &["ROLE"], |answer| answer.starts_with("slave")).await;
    // The lock moved with the message.
    let begin = Instant::now();
    let settled = loop {
        match world
            .hot
            .settle_and_start(
                &sub,
                chronow::hot::SettleAndStart { settle: vec![(got.lock.clone(), Settle::Ack)], start: vec![] },
            )
            .await
        {
            Ok(outcome) => break outcome.settled,
            Err(error) => assert!(error.is_retryable() && begin.elapsed() < TIMEOUT, "{error}"),
        }
    };
    assert_eq!(settled, [Settled::Done]);
    assert_eq!(texts(&world.pull(&sub, 1).await), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left_for_where_its_name_leads() {
    let (old, new) = (RedisServer::start(&[]).await, RedisServer::start(&[]).await);
    let proxy = Proxy::in_front_of(&old.url()).await;
    let world = World::new(RedisConfig::single(proxy.uri()), 1).await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub =
        world.sub(&topic, "s", SubscriptionPatch::default().visibility(Duration::from_millis(600_000))).await;
    world.publish(&topic, &["a", "b"]).await;
    let got = world.pull(&sub, 1).await.remove(0);
    new.run(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
    old.until("the replica follows", &["INFO", "replication"], |answer| answer.contains("state=online"))
        .await;
    new.has_all_of(&old).await;
    new.run(&["REPLICAOF", "NO", "ONE"]).await;
    proxy.lead_to(&new.url());
    // It keeps its connections, as some do that are asked to step down, and follows nobody who could pass
    // anything on.
    old.run(&["REPLICAOF", "127.0.0.1", &SilentPort::take().address().port().to_string()]).await;
    assert_eq!(world.settle(&sub, &got.lock, Settle::Ack).await, Settled::Done);
    assert_eq!(texts(&world.pull(&sub, 1).await), ["b"]);
    // Every listener hears the new one, too.
    let begin = Instant::now();
    let waited = async {
        world.hot.wait(&sub, TIMEOUT).await.unwrap();
        begin.elapsed()
    };
    let published = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.publish(&topic, &["c"]).await;
    };
    let (waited, ()) = tokio::join!(waited, published);
    assert!(waited < TIMEOUT / 2, "a publish on the new master was heard after {waited:?}");
    let values = &world.hot;
    values.set(&world.scope, "k", Some("x".into()), "", None, Precondition::Always).await.unwrap();
    assert!(values.get(&world.scope, &["k".to_owned()]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn after_closing_everything_says_so() {
    let world = World::single().await;
    let topic = world.topic("t", TopicPatch::default()).await;
    let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
    world.hot.close().await.unwrap();
    assert_eq!(world.hot.publish(&topic, vec![message("a")]).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(world.hot.wait(&sub, Duration::from_secs(30)).await.unwrap_err().kind(), ErrorKind::Closed);
}
