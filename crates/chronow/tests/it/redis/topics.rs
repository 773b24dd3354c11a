use std::time::{Duration, Instant};

use chronow::hot::{
    DeliverPolicy, DiscardPolicy, HotTier, MessageStore, OutboundMessage, Select, Settle, Settled,
    SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch,
};
use chronow::{ErrorKind, Page, SubscriptionName, Timestamp};
use test_support::servers;

use super::{World, everywhere, keyed, message, retry, texts};
use crate::tiers::until;

everywhere! {
    async fn options_stay_unless_they_are_given(world: World) {
        let topic = world.topic("t", TopicPatch::default().max_len(7)).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().max_deliveries(9)).await;
        let again = world.hot.ensure_topic(&topic, &TopicPatch::default().shards(99).ttl(Some(Duration::from_millis(5_000)))).await.unwrap();
        let shards = again.shards;
        assert!(shards < 99);
        let ttl = Some(Duration::from_millis(5_000));
        let wanted = TopicPatch::default().shards(shards).max_len(7).ttl(ttl);
        assert_eq!(again, wanted.apply(&TopicOptions::default()));
        assert_eq!(world.hot.topic(&topic).await.unwrap(), Some(again));
        let again = world.hot.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap();
        let wanted = SubscriptionPatch::default().max_deliveries(9);
        assert_eq!(again, wanted.apply(&SubscriptionOptions::default()));
        assert_eq!(world.hot.subscription(&sub).await.unwrap(), Some(again));
        assert_eq!(world.hot.topics(&world.scope).await.unwrap(), ["t"]);
        assert_eq!(world.hot.subscriptions(&topic).await.unwrap(), ["s"]);
    }

    async fn what_is_not_there_is_not_found(world: World) {
        let topic = world.name("no");
        let sub = SubscriptionName::new(&topic, "s").unwrap();
        let kinds = [
            world.hot.publish(&topic, vec![message("a")]).await.unwrap_err().kind(),
            world.hot.pull(&sub, 1).await.unwrap_err().kind(),
            world.hot.stats(&topic).await.unwrap_err().kind(),
            world.hot.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::NotFound; 4]);
        assert_eq!(world.hot.topic(&topic).await.unwrap(), None);
        assert_eq!(world.hot.subscription(&sub).await.unwrap(), None);
        assert!(!world.hot.delete_topic(&topic).await.unwrap());
        let topic = world.topic("yes", TopicPatch::default()).await;
        let sub = SubscriptionName::new(&topic, "s").unwrap();
        assert_eq!(world.hot.pull(&sub, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(world.hot.subscription(&sub).await.unwrap(), None);
        assert!(!world.hot.delete_subscription(&sub).await.unwrap());
    }

    async fn a_new_subscription_begins_where_it_is_asked_to(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        // Of one key, so that they lie in one shard and have an order.
        let ids: Vec<String> = {
            let mut ids = Vec::new();
            for text in ["1", "2", "3"] {
                ids.push(world.hot.publish(&topic, vec![keyed("k", text)]).await.unwrap().remove(0).id);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ids
        };
        let time = ids[2].rsplit('.').next().unwrap().split('-').next().unwrap().parse().unwrap();
        let from = |start| SubscriptionPatch::default().start(start);
        let new = world.sub(&topic, "new", from(DeliverPolicy::New)).await;
        let earliest = world.sub(&topic, "earliest", from(DeliverPolicy::Earliest)).await;
        let at = world.sub(&topic, "at", from(DeliverPolicy::Time(time))).await;
        let behind = world.sub(&topic, "behind", from(DeliverPolicy::Id(ids[0].clone()))).await;
        world.hot.publish(&topic, vec![keyed("k", "4")]).await.unwrap();
        for (sub, expected) in [(&new, "4"), (&earliest, "1234"), (&at, "34"), (&behind, "234")] {
            let mut came = String::new();
            for _ in expected.chars() {
                let got = world.pull(sub, 1).await.remove(0);
                came += std::str::from_utf8(&got.message.payload).unwrap();
                world.settle(sub, &got.lock, Settle::Ack).await;
            }
            assert_eq!(came, expected, "{sub}");
            world.nothing(sub).await;
        }
        let bad = SubscriptionName::new(&topic, "bad").unwrap();
        let error = world.hot.ensure_subscription(&bad, &from(DeliverPolicy::Id("x".to_owned()))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert_eq!(world.hot.subscription(&bad).await.unwrap(), None);
    }

    async fn settled_messages_go_and_unsettled_ones_stay(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let fast = world.sub(&topic, "fast", SubscriptionPatch::default()).await;
        let slow = world.sub(&topic, "slow", SubscriptionPatch::default()).await;
        let texts: Vec<String> = (0..50).map(|i| format!("{i}")).collect();
        world.publish(&topic, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for got in world.pull(&fast, 50).await {
            world.settle(&fast, &got.lock, Settle::Ack).await;
        }
        assert_eq!(world.hot.stats(&topic).await.unwrap().length, 50);
        let held = world.pull(&slow, 50).await;
        for got in &held[1..] {
            world.settle(&slow, &got.lock, Settle::Ack).await;
        }
        // Everything but the one in flight is gone, and that one is still there when it is given back.
        assert_eq!(world.hot.stats(&topic).await.unwrap().length, 1);
        world.settle(&slow, &held[0].lock, retry("x")).await;
        let again = world.pull(&slow, 1).await.remove(0);
        assert_eq!(again.message.payload, held[0].message.payload);
        world.settle(&slow, &again.lock, Settle::Ack).await;
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!(stats.length, 0);
        assert_eq!(stats.subscriptions.iter().map(|s| (s.acked, s.backlog, s.pending)).collect::<Vec<_>>(), [(50, 0, 0), (50, 0, 0)]);
    }

    async fn stats_count_every_place(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.publish(&topic, &["a", "b", "c", "d", "e"]).await;
        let got = world.pull(&sub, 4).await;
        world.start(&sub, &got[0].lock).await;
        world.settle(&sub, &got[0].lock, Settle::Ack).await;
        world.settle(&sub, &got[1].lock, Settle::Retry { delay: Some(Duration::from_secs(60)), reason: String::new() }).await;
        world.settle(&sub, &got[2].lock, Settle::DeadLetter { reason: "bad".to_owned() }).await;
        let at = world.hot.now().await.unwrap().plus_millis(60_000);
        world.hot.publish(&topic, vec![OutboundMessage { not_before: Some(at), ..message("f") }]).await.unwrap();
        let stats = world.hot.stats(&topic).await.unwrap();
        let s = &stats.subscriptions[0];
        assert_eq!((s.backlog, s.pending, s.scheduled, s.deferred, s.dead_letters, s.deliveries, s.acked), (1, 1, 2, 0, 1, 1, 1));
        assert_eq!(stats.length, 4);
        assert!(s.oldest_age.is_some());
    }

    async fn a_full_topic_refuses_what_does_not_fit_and_nothing_of_it(world: World) {
        let topic = world.topic("t", TopicPatch::default().max_len(30)).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        // One key: one shard, whose share is a third if there are three.
        let fit = if world.hot.topic(&topic).await.unwrap().unwrap().shards == 1 { 30 } else { 10 };
        let many = |n: usize| (0..n).map(|i| keyed("k", &format!("{i}"))).collect::<Vec<_>>();
        world.hot.publish(&topic, many(fit - 2)).await.unwrap();
        let error = world.hot.publish(&topic, many(3)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Full && error.is_retryable(), "{error}");
        world.hot.publish(&topic, many(2)).await.unwrap();
        assert_eq!(world.hot.stats(&topic).await.unwrap().length, fit as u64);
        let got = world.pull(&sub, 1).await.remove(0);
        assert_eq!(world.hot.publish(&topic, many(1)).await.unwrap_err().kind(), ErrorKind::Full);
        world.settle(&sub, &got.lock, Settle::Ack).await;
        world.hot.publish(&topic, many(1)).await.unwrap();
    }

    async fn a_full_topic_drops_its_oldest_and_counts_them(world: World) {
        let patch = TopicPatch::default().max_len(30).overflow(DiscardPolicy::DropOldest);
        let topic = world.topic("t", patch).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let fit = if world.hot.topic(&topic).await.unwrap().unwrap().shards == 1 { 30 } else { 10 };
        let many = |from: usize, n: usize| (from..from + n).map(|i| keyed("k", &format!("{i:03}"))).collect::<Vec<_>>();
        world.hot.publish(&topic, many(0, fit)).await.unwrap();
        let flight = world.pull(&sub, 1).await.remove(0);
        world.nothing(&sub).await;
        world.hot.publish(&topic, many(fit, 5)).await.unwrap();
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!((stats.length, stats.dropped), (fit as u64, 5));
        // The oldest was in flight.
        assert_eq!(world.settle(&sub, &flight.lock, Settle::Ack).await, Settled::Lost);
        assert_eq!(texts(&world.pull(&sub, 1).await), ["005"]);
    }

    async fn messages_owed_to_nobody_go_oldest_first(world: World) {
        let topic = world.topic("t", TopicPatch::default().max_len(30)).await;
        let fit = if world.hot.topic(&topic).await.unwrap().unwrap().shards == 1 { 30 } else { 10 };
        for i in 0..fit + 5 {
            world.hot.publish(&topic, vec![keyed("k", &format!("{i:03}"))]).await.unwrap();
        }
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!((stats.length, stats.dropped), (fit as u64, 0));
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().start(DeliverPolicy::Earliest)).await;
        assert_eq!(texts(&world.pull(&sub, 1).await), ["005"]);
    }

    async fn dead_letters_are_paged_redriven_and_purged(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let sent: Vec<String> = (0..7).map(|i| format!("{i}")).collect();
        world.publish(&topic, &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut got = world.pull(&sub, 7).await;
        got.sort_by(|a, b| a.message.payload.cmp(&b.message.payload));
        for delivery in &got {
            world.start(&sub, &delivery.lock).await;
            world.settle(&sub, &delivery.lock, Settle::DeadLetter { reason: "bad".to_owned() }).await;
        }
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let Page { items: page, next, .. } = world.hot.dead_letters(&sub, after.as_deref(), 3).await.unwrap();
            listed.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        let order: Vec<_> = listed.iter().map(|letter| String::from_utf8(letter.message.payload.to_vec()).unwrap()).collect();
        assert_eq!(order, sent);
        assert!(listed.iter().all(|letter| letter.deliveries == 1 && letter.failed_at >= letter.message.published_at));
        let ids = vec![listed[6].message.id.clone(), "1-1".to_owned()];
        assert_eq!(world.hot.redrive(&sub, &Select::Ids(ids)).await.unwrap(), 1);
        let again = world.pull(&sub, 1).await.remove(0);
        assert_eq!((&again.lock.id, again.deliveries), (&listed[6].message.id, 0));
        assert_eq!(world.hot.redrive(&sub, &Select::Oldest(2)).await.unwrap(), 2);
        assert_eq!(texts(&world.pull(&sub, 2).await), ["0", "1"]);
        assert_eq!(world.hot.purge_dead_letters(&sub, &Select::Oldest(1)).await.unwrap(), 1);
        assert_eq!(world.hot.redrive(&sub, &Select::All).await.unwrap(), 3);
        assert_eq!(texts(&world.pull(&sub, 3).await), ["3", "4", "5"]);
        assert_eq!(world.hot.purge_dead_letters(&sub, &Select::All).await.unwrap(), 0);
        assert_eq!(world.hot.dead_letters(&sub, Some("x"), 3).await.unwrap_err().kind(), ErrorKind::Validation);
    }

    async fn purging_removes_messages_and_keeps_subscriptions_and_dead_letters(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.publish(&topic, &["dead", "retried", "unread", "flight"]).await;
        let got = world.pull(&sub, 3).await;
        world.settle(&sub, &got[0].lock, Settle::DeadLetter { reason: "x".to_owned() }).await;
        world.settle(&sub, &got[1].lock, retry("x")).await;
        assert_eq!(world.hot.purge(&topic).await.unwrap(), 3);
        world.nothing(&sub).await;
        assert_eq!(world.settle(&sub, &got[2].lock, Settle::Ack).await, Settled::Lost);
        assert_eq!(world.hot.dead_letters(&sub, None, 10).await.unwrap().items.len(), 1);
        world.publish(&topic, &["after"]).await;
        assert_eq!(texts(&world.pull(&sub, 1).await), ["after"]);
    }

    async fn a_paused_subscription_hands_out_nothing_until_it_is_resumed(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let paused = |paused| SubscriptionPatch::default().paused(paused);
        let sub = world.sub(&topic, "s", paused(true)).await;
        world.publish(&topic, &["a"]).await;
        world.nothing(&sub).await;
        let begin = Instant::now();
        world.hot.wait(&sub, Duration::from_millis(300)).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(290));
        assert!(world.hot.stats(&topic).await.unwrap().subscriptions[0].paused);
        world.hot.ensure_subscription(&sub, &paused(false)).await.unwrap();
        assert_eq!(texts(&world.pull(&sub, 1).await), ["a"]);
    }

    async fn a_subscription_nobody_pulls_from_removes_itself(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let after = |ms| SubscriptionPatch::default().auto_delete(Some(Duration::from_millis(ms)));
        let idle = world.sub(&topic, "idle", after(600_000)).await;
        world.sub(&topic, "kept", SubscriptionPatch::default()).await;
        world.publish(&topic, &["a", "b", "c"]).await;
        assert_eq!(world.hot.stats(&topic).await.unwrap().subscriptions.len(), 2);
        world.hot.ensure_subscription(&idle, &after(400)).await.unwrap();
        until("the idle one goes", || async { world.hot.stats(&topic).await.unwrap().subscriptions.len() == 1 }).await;
        assert_eq!(world.hot.subscriptions(&topic).await.unwrap(), ["kept"]);
        assert_eq!(world.hot.pull(&idle, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    async fn replayed_messages_come_under_their_own_ids_to_one_subscription(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let other = world.sub(&topic, "other", SubscriptionPatch::default()).await;
        let old = Timestamp::from_millis(1_000);
        let accepted = |id: &str, text: &str| keyed("k", text).stored(id.to_owned(), old);
        let replay = vec![accepted("1000-0", "a"), accepted("1000-1", "b")];
        assert_eq!(world.hot.replay(&sub, replay.clone()).await.unwrap(), 2);
        assert_eq!(world.hot.replay(&sub, replay).await.unwrap(), 0);
        for (id, text) in [("1000-0", "a"), ("1000-1", "b")] {
            let got = world.pull(&sub, 1).await.remove(0);
            assert_eq!((got.lock.id.as_str(), &got.message.payload[..], got.message.published_at), (id, text.as_bytes(), old));
            world.nothing(&sub).await;
            world.settle(&sub, &got.lock, Settle::Ack).await;
        }
        world.nothing(&other).await;
    }
}

#[tokio::test]
async fn removing_a_topic_leaves_no_key_behind() {
    let world = World::single().await;
    let patch = TopicPatch::default().shards(3);
    let topic = world.name("t");
    world.hot.ensure_topic(&topic, &patch).await.unwrap();
    let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
    let at = world.hot.now().await.unwrap().plus_millis(60_000);
    let mut sent: Vec<_> = (0..12).map(|i| keyed(&format!("k{}", i % 3), "x")).collect();
    sent.push(OutboundMessage { not_before: Some(at), dedup_id: Some("d".to_owned()), ..message("later") });
    world.hot.publish(&topic, sent).await.unwrap();
    let got = world.pull(&sub, 3).await;
    world.settle(&sub, &got[0].lock, Settle::DeadLetter { reason: "x".to_owned() }).await;
    world.settle(&sub, &got[1].lock, retry("x")).await;
    world.settle(&sub, &got[2].lock, Settle::Defer).await;
    let client = ::redis::Client::open(servers::redis_url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys = async || -> Vec<String> {
        ::redis::cmd("KEYS").arg(format!("*{}*", world.scope.tenant())).query_async(&mut raw).await.unwrap()
    };
    let before = keys().await;
    let tag = format!("cw:{{{}:ns:topic:t", world.scope.tenant());
    assert!(before.iter().all(|key| key.starts_with(&tag) || key.ends_with(":topics")), "{before:?}");
    assert!(world.hot.delete_subscription(&sub).await.unwrap());
    let left = keys().await;
    assert!(left.iter().all(|key| !key.contains(":sub:")), "{left:?}");
    assert!(world.hot.delete_topic(&topic).await.unwrap());
    assert_eq!(keys().await, Vec::<String>::new());
}
