use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronos_db::json;
use chronow::hot::{
    HotTier, KeyValueStore, MessageState, MessageStore, OutboundMessage, Select, Settle, SettleAndStart,
    Settled, SubscriptionPatch, TopicPatch,
};
use parking_lot::Mutex;

use super::{World, everywhere, keyed, message, retry, texts, with_header};
use crate::tiers::{TIMEOUT, until, within};

everywhere! {
    async fn a_message_arrives_as_it_was_sent(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let sent = OutboundMessage {
            payload: vec![0, 255, b'"', b'1'].into(),
            content_type: "application/x-bytes".to_owned(),
            headers: BTreeMap::from([("a".to_owned(), "ü:|\u{0}".to_owned())]),
            key: Some("k|:{}".to_owned()),
            ..OutboundMessage::default()
        };
        let id = world.hot.publish(&topic, vec![sent.clone()]).await.unwrap().remove(0).id;
        let got = world.pull(&sub, 1).await.remove(0);
        assert_eq!((got.message.payload, got.message.content_type, got.message.headers, got.message.key), (sent.payload, sent.content_type, sent.headers, sent.key));
        assert_eq!((got.lock.id, got.deliveries), (id, 0));
        let now = world.hot.now().await.unwrap();
        assert!((now.as_millis() - got.message.published_at.as_millis()).abs() < 20_000 && got.locked_until > got.message.published_at);
    }

    async fn a_lock_that_expires_gives_the_message_to_the_next_and_the_late_ack_is_lost(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.publish(&topic, &["a", "b"]).await;
        let first = world.pull(&sub, 2).await;
        assert!(world.start(&sub, &first[0].lock).await);
        world.let_end(&sub, &first).await;
        let second = world.pull(&sub, 2).await;
        assert_eq!(texts(&second), ["a", "b"]);
        for delivery in &second {
            let before = first.iter().find(|before| before.lock.id == delivery.lock.id).unwrap();
            assert_ne!(before.lock.token, delivery.lock.token);
            // Only what was started counts.
            assert_eq!(delivery.deliveries, u32::from(delivery.lock.id == first[0].lock.id));
            assert_eq!(world.settle(&sub, &before.lock, Settle::Ack).await, Settled::Lost);
            assert!(!world.start(&sub, &before.lock).await);
        }
        assert_eq!(world.hot.renew(&sub, vec![first[0].lock.clone(), second[0].lock.clone()]).await.unwrap(), [false, true]);
        for delivery in &second {
            assert_eq!(world.settle(&sub, &delivery.lock, Settle::Ack).await, Settled::Done);
            assert_eq!(world.settle(&sub, &delivery.lock, Settle::Ack).await, Settled::Lost);
        }
    }

    async fn a_renewed_lock_holds_on(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().visibility(Duration::from_millis(5_000))).await;
        world.publish(&topic, &["a"]).await;
        let got = world.pull(&sub, 1).await.remove(0);
        until("the lock it began with would be over", || async {
            let over = world.hot.now().await.unwrap() > got.locked_until;
            assert_eq!(world.hot.renew(&sub, vec![got.lock.clone()]).await.unwrap(), [true]);
            world.nothing(&sub).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            over
        })
        .await;
        assert_eq!(world.settle(&sub, &got.lock, Settle::Ack).await, Settled::Done);
    }

    async fn retries_of_one_subscription_are_never_seen_by_another(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let good = world.sub(&topic, "good", SubscriptionPatch::default()).await;
        let bad = world.sub(&topic, "bad", SubscriptionPatch::default().max_deliveries(3)).await;
        world.publish(&topic, &["a"]).await;
        let got = world.pull(&good, 1).await.remove(0);
        world.settle(&good, &got.lock, Settle::Ack).await;
        for started in 0..3 {
            let got = world.pull(&bad, 1).await.remove(0);
            assert_eq!(got.deliveries, started);
            assert!(world.start(&bad, &got.lock).await);
            let expected = if started == 2 { Settled::DeadLettered } else { Settled::Done };
            assert_eq!(world.settle(&bad, &got.lock, retry("broken")).await, expected);
            world.nothing(&good).await;
        }
        world.nothing(&bad).await;
        let dead = world.hot.dead_letters(&bad, None, 10).await.unwrap().items;
        assert_eq!((dead.len(), dead[0].deliveries, dead[0].reason.as_str(), &dead[0].message.payload[..]), (1, 3, "broken", &b"a"[..]));
        assert_eq!(world.hot.dead_letters(&good, None, 10).await.unwrap().items, []);
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!(stats.length, 0);
    }

    async fn a_message_that_kills_its_handlers_ends_in_the_dead_letters(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().max_deliveries(2)).await;
        world.publish(&topic, &["poison"]).await;
        for _ in 0..2 {
            let got = world.pull(&sub, 1).await.remove(0);
            assert!(world.start(&sub, &got.lock).await);
            world.let_end(&sub, &[got]).await;
        }
        until("it is dead", || async {
            world.nothing(&sub).await;
            !world.hot.dead_letters(&sub, None, 10).await.unwrap().items.is_empty()
        })
        .await;
    }

    async fn eight_consumers_redeliver_each_message_once(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let sent: Vec<String> = (0..200).map(|i| format!("m{i}")).collect();
        world.publish(&topic, &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let world = Arc::new(world);
        let seen = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let consumers: Vec<_> = (0..8)
            .map(|_| {
                let (world, sub, seen) = (Arc::clone(&world), sub.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let begin = Instant::now();
                    while seen.lock().values().sum::<u32>() < 400 && begin.elapsed() < TIMEOUT {
                        let pulled = world.hot.pull(&sub, 7).await.unwrap();
                        let start: Vec<_> = pulled.deliveries.iter().map(|delivery| delivery.lock.clone()).collect();
                        let settle = pulled
                            .deliveries
                            .iter()
                            .map(|delivery| (delivery.lock.clone(), if delivery.deliveries == 0 { retry("once") } else { Settle::Ack }))
                            .collect();
                        world.hot.settle_and_start(&sub, SettleAndStart { start, ..SettleAndStart::default() }).await.unwrap();
                        let ended = world.hot.settle_and_start(&sub, SettleAndStart { settle, ..SettleAndStart::default() }).await.unwrap();
                        assert!(ended.settled.iter().all(|settled| *settled == Settled::Done));
                        for delivery in pulled.deliveries {
                            *seen.lock().entry(delivery.lock.id).or_default() += 1;
                        }
                    }
                })
            })
            .collect();
        for consumer in consumers {
            consumer.await.unwrap();
        }
        world.nothing(&sub).await;
        let seen = seen.lock();
        assert_eq!(seen.len(), 200);
        assert!(seen.values().all(|n| *n == 2), "{seen:?}");
    }

    async fn waits_follow_the_table_unless_a_delay_is_given(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let patch = SubscriptionPatch::default().backoff([60_000, 120_000, 300_000].map(Duration::from_millis)).jitter_percent(0).max_deliveries(9);
        let sub = world.sub(&topic, "s", patch).await;
        world.publish(&topic, &["a", "b"]).await;
        for delivery in world.pull(&sub, 2).await {
            assert!(world.start(&sub, &delivery.lock).await);
            let delay = (delivery.message.payload == "b").then_some(Duration::from_secs(600));
            world.settle(&sub, &delivery.lock, Settle::Retry { delay, reason: "x".to_owned() }).await;
        }
        let now = world.hot.now().await.unwrap().as_millis();
        // In half minutes, so that a busy machine may be some seconds late.
        let mut waits: Vec<i64> = world.hot.peek(&sub, 10).await.unwrap().iter().map(|m| (m.until.unwrap().as_millis() - now + 15_000) / 30_000).collect();
        waits.sort_unstable();
        assert_eq!(waits, [2, 20]);
        assert!(world.hot.pull(&sub, 10).await.unwrap().next_due.is_some_and(|due| due > Duration::from_secs(30) && due < Duration::from_secs(61)));
    }

    async fn messages_of_a_key_come_in_order_one_at_a_time(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let sent = (0..20).map(|i| keyed(if i % 2 == 0 { "even" } else { "odd" }, &format!("{i:02}"))).collect();
        world.hot.publish(&topic, sent).await.unwrap();
        let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut failed = BTreeSet::new();
        while came.values().map(Vec::len).sum::<usize>() < 20 {
            let got = world.pull(&sub, 1).await.remove(0);
            let text = String::from_utf8(got.message.payload.to_vec()).unwrap();
            let key = got.message.key.unwrap();
            // Whatever else is handed out meanwhile is of the other key.
            let beside = world.hot.pull(&sub, 10).await.unwrap().deliveries;
            assert!(beside.len() <= 1 && beside.iter().all(|other| other.message.key.as_ref() != Some(&key)), "{beside:?}");
            for other in &beside {
                assert_eq!(world.settle(&sub, &other.lock, Settle::Release).await, Settled::Done);
            }
            if failed.insert(text.clone()) && text.ends_with('4') {
                world.settle(&sub, &got.lock, retry("again")).await;
            } else {
                world.settle(&sub, &got.lock, Settle::Ack).await;
                came.entry(key).or_default().push(text);
            }
        }
        for texts in came.values() {
            assert!(texts.is_sorted(), "{came:?}");
        }
        world.nothing(&sub).await;
        assert_eq!(world.hot.stats(&topic).await.unwrap().length, 0);
    }

    async fn a_scheduled_message_waits_for_its_time_and_can_be_taken_back(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let never = world.hot.now().await.unwrap().plus_millis(600_000);
        let sent = vec![OutboundMessage { not_before: Some(never), ..message("never") }, message("now")];
        let ids: Vec<_> = world.hot.publish(&topic, sent).await.unwrap().into_iter().map(|p| p.id).collect();
        assert_eq!(texts(&world.pull(&sub, 1).await), ["now"]);
        assert!(world.hot.cancel(&topic, &ids[0]).await.unwrap());
        assert!(!world.hot.cancel(&topic, &ids[0]).await.unwrap());
        let due = world.hot.now().await.unwrap().plus_millis(500);
        let later = OutboundMessage { not_before: Some(due), ..message("later") };
        let id = world.hot.publish(&topic, vec![later]).await.unwrap().remove(0).id;
        let got = world.pull(&sub, 1).await.remove(0);
        assert_eq!((&got.message.payload[..], &got.lock.id), (&b"later"[..], &id));
        assert!(world.hot.now().await.unwrap() >= due);
        assert!(!world.hot.cancel(&topic, &id).await.unwrap());
    }

    async fn what_nobody_started_in_time_is_dead_as_expired(world: World) {
        let topic = world.topic("t", TopicPatch::default().ttl(Some(Duration::from_millis(200)))).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let long = OutboundMessage { ttl: Some(Duration::from_secs(600)), ..message("long") };
        world.hot.publish(&topic, vec![message("short"), long]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(texts(&world.pull(&sub, 1).await), ["long"]);
        world.nothing(&sub).await;
        let dead = world.hot.dead_letters(&sub, None, 10).await.unwrap().items;
        assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].deliveries), (1, "expired", 0));
        assert_eq!(world.hot.redrive(&sub, &Select::All).await.unwrap(), 1);
        assert_eq!(texts(&world.pull(&sub, 1).await), ["short"]);
    }

    async fn the_same_dedup_id_is_accepted_once(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let with = |id: &str, text: &str| OutboundMessage { dedup_id: Some(id.to_owned()), ..message(text) };
        let first = world.hot.publish(&topic, vec![with("x", "1"), with("x", "2"), with("y", "3")]).await.unwrap();
        assert_eq!(first.iter().map(|p| p.duplicate).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(first[0].id, first[1].id);
        let again = world.hot.publish(&topic, vec![with("x", "4")]).await.unwrap();
        assert_eq!((again[0].duplicate, &again[0].id), (true, &first[0].id));
        assert_eq!(texts(&world.pull(&sub, 2).await), ["1", "3"]);
        // A window that is over.
        world.hot.ensure_topic(&topic, &TopicPatch::default().dedup_window(Duration::from_millis(100))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!world.hot.publish(&topic, vec![with("x", "5")]).await.unwrap()[0].duplicate);
        assert_eq!(texts(&world.pull(&sub, 1).await), ["5"]);
    }

    async fn a_filter_leaves_messages_out_and_settles_them(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let filter = json!({"$or": [{"payload.n": {"$gte": 8}}, {"headers.kind": "vip"}]});
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().filter(Some(filter))).await;
        let mut sent: Vec<_> = (0..10).map(|n| message(&json!({"n": n}).to_string())).collect();
        sent.push(with_header("kind", "vip", "no json"));
        world.hot.publish(&topic, sent).await.unwrap();
        let got = world.pull(&sub, 3).await;
        assert_eq!(texts(&got), ["no json", r#"{"n":8}"#, r#"{"n":9}"#]);
        world.nothing(&sub).await;
        for delivery in &got {
            world.settle(&sub, &delivery.lock, Settle::Ack).await;
        }
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!((stats.length, stats.subscriptions[0].acked, stats.subscriptions[0].backlog), (0, 3, 0));
        let all = SubscriptionPatch::default().filter(None);
        world.hot.ensure_subscription(&sub, &all).await.unwrap();
        world.publish(&topic, &["plain"]).await;
        assert_eq!(texts(&world.pull(&sub, 1).await), ["plain"]);
    }

    async fn a_deferred_message_waits_to_be_fetched(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.hot.publish(&topic, vec![keyed("k", "1"), keyed("k", "2")]).await.unwrap();
        let first = world.pull(&sub, 1).await.remove(0);
        assert!(world.start(&sub, &first.lock).await);
        assert_eq!(world.settle(&sub, &first.lock, Settle::Defer).await, Settled::Done);
        // The key goes on without it.
        assert_eq!(texts(&world.pull(&sub, 1).await), ["2"]);
        let id = first.lock.id.clone();
        let fetched = world.hot.fetch_deferred(&sub, vec![id.clone(), "1-1".to_owned()]).await.unwrap();
        assert_eq!((texts(&fetched), fetched[0].deliveries), (vec!["1".to_owned()], 1));
        assert_eq!(world.hot.fetch_deferred(&sub, vec![id]).await.unwrap(), []);
        assert_eq!(world.settle(&sub, &fetched[0].lock, Settle::Ack).await, Settled::Done);
    }

    async fn what_is_given_back_unused_is_available_at_once_and_not_counted(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.publish(&topic, &["a"]).await;
        for _ in 0..10 {
            let got = world.hot.pull(&sub, 5).await.unwrap().deliveries.remove(0);
            assert_eq!(got.deliveries, 0);
            assert_eq!(world.settle(&sub, &got.lock, Settle::Release).await, Settled::Done);
        }
    }

    async fn waiting_ends_when_something_is_published_and_holds_up_nobody(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let world = Arc::new(world);
        let mut waiting = Vec::new();
        for i in 0..10 {
            let sub = world.sub(&topic, &format!("s{i}"), SubscriptionPatch::default()).await;
            let world = Arc::clone(&world);
            waiting.push(tokio::spawn(async move {
                world.hot.wait(&sub, TIMEOUT * 10).await.unwrap();
            }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        within(world.hot.get(&world.scope, &["x".to_owned()])).await.unwrap();
        world.publish(&topic, &["a"]).await;
        for waiting in waiting {
            within(waiting).await.unwrap();
        }
        // What was published before is not waited for.
        let sub = world.sub(&topic, "s0", SubscriptionPatch::default()).await;
        within(world.hot.wait(&sub, TIMEOUT * 10)).await.unwrap();
        world.pull(&sub, 1).await;
        // Between the nodes of a cluster a call may come late, and wakes a waiter for nothing.
        for calls in 0.. {
            let begin = Instant::now();
            world.hot.wait(&sub, Duration::from_millis(300)).await.unwrap();
            if begin.elapsed() >= Duration::from_millis(290) {
                break;
            }
            assert!(calls < 3, "nobody called, and it does not wait");
        }
    }

    async fn peeking_shows_everything_and_takes_nothing(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        world.publish(&topic, &["flight", "later", "aside"]).await;
        for got in world.pull(&sub, 3).await {
            match &got.message.payload[..] {
                b"later" => world.settle(&sub, &got.lock, Settle::Retry { delay: Some(Duration::from_secs(60)), reason: String::new() }).await,
                b"aside" => world.settle(&sub, &got.lock, Settle::Defer).await,
                _ => Settled::Done,
            };
        }
        world.publish(&topic, &["unread"]).await;
        for _ in 0..2 {
            let mut seen: Vec<_> =
                world.hot.peek(&sub, 10).await.unwrap().into_iter().map(|m| (String::from_utf8(m.message.payload.to_vec()).unwrap(), m.state)).collect();
            seen.sort_by(|a, b| a.0.cmp(&b.0));
            let expected = [("aside", MessageState::Deferred), ("flight", MessageState::InFlight), ("later", MessageState::Scheduled), ("unread", MessageState::Unread)];
            assert_eq!(seen, expected.map(|(text, place)| (text.to_owned(), place)));
        }
        assert_eq!(texts(&world.pull(&sub, 1).await), ["unread"]);
    }

    async fn large_batches_keep_their_ids_and_their_order(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        // Of one key, so of one shard; of several shapes, so that nothing is written as nothing is expected.
        let shape = |n: usize| {
            let plain = keyed("k", &n.to_string());
            match n % 400 {
                0..300 => plain,
                300..350 => OutboundMessage { content_type: "text/plain".to_owned(), ..plain },
                _ => OutboundMessage { headers: BTreeMap::from([("n".to_owned(), n.to_string())]), ..plain },
            }
        };
        for first in [0, 1_250] {
            let sent: Vec<OutboundMessage> = (first..first + 1_250).map(shape).collect();
            let ids: Vec<String> = world.hot.publish(&topic, sent.clone()).await.unwrap().into_iter().map(|one| one.id).collect();
            for (id, sent) in ids.into_iter().zip(sent) {
                let got = world.pull(&sub, 1).await.remove(0);
                assert_eq!((got.lock.id.clone(), got.message.payload, got.message.content_type, got.message.headers), (id, sent.payload, sent.content_type, sent.headers));
                world.settle(&sub, &got.lock, Settle::Ack).await;
            }
        }
        world.nothing(&sub).await;
    }

    async fn a_pull_can_start_the_first_of_what_it_brings(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().max_deliveries(1)).await;
        world.hot.publish(&topic, ["a", "b", "c"].map(|text| keyed(text, text)).to_vec()).await.unwrap();
        let pulled = world.hot.pull_and_start(&sub, 3, 2).await.unwrap();
        assert_eq!((pulled.deliveries.len(), pulled.started), (3, 2));
        assert!(pulled.deliveries.iter().all(|delivery| delivery.deliveries == 0), "this time does not count yet");
        let stats = || async { world.hot.stats(&topic).await.unwrap().subscriptions.remove(0) };
        assert_eq!(stats().await.deliveries, 2);
        let locks: Vec<_> = pulled.deliveries.iter().map(|delivery| delivery.lock.clone()).collect();
        // The one that was started has used its delivery up, the other one has not.
        assert_eq!(world.settle(&sub, &locks[0], retry("x")).await, Settled::DeadLettered);
        assert_eq!(world.settle(&sub, &locks[2], retry("x")).await, Settled::Done);
        // What no handler has seen was not delivered.
        assert_eq!(world.settle(&sub, &locks[1], Settle::Refuse { reason: "unreadable".to_owned() }).await, Settled::Done);
        let letters = world.hot.dead_letters(&sub, None, 10).await.unwrap().items;
        let mut reported: Vec<_> = letters.iter().map(|letter| (letter.reason.as_str(), letter.deliveries)).collect();
        reported.sort_unstable();
        assert_eq!(reported, [("unreadable", 0), ("x", 1)]);
        assert_eq!(stats().await.deliveries, 1);
        let again = world.hot.pull_and_start(&sub, 3, 3).await.unwrap();
        assert_eq!((again.deliveries[0].lock.id.as_str(), again.started), (locks[2].id.as_str(), 1));
    }

    async fn a_pull_starts_nothing_that_a_filter_may_leave_out(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let filter = json!({ "payload": 1 });
        let sub = world.sub(&topic, "s", SubscriptionPatch::default().filter(Some(filter))).await;
        world.publish(&topic, &["1", "2", "1", "2"]).await;
        let pulled = world.hot.pull_and_start(&sub, 10, 10).await.unwrap();
        assert_eq!((texts(&pulled.deliveries), pulled.started), (vec!["1".to_owned(), "1".to_owned()], 0));
        assert_eq!(world.hot.stats(&topic).await.unwrap().subscriptions[0].deliveries, 0);
    }

    async fn many_in_flight_are_settled_one_by_one_and_together(world: World) {
        let topic = world.topic("t", TopicPatch::default()).await;
        let sub = world.sub(&topic, "s", SubscriptionPatch::default()).await;
        let texts: Vec<String> = (0..900).map(|n| n.to_string()).collect();
        world.publish(&topic, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut held = world.pull(&sub, 900).await;
        let rest = held.split_off(300);
        for one in &held[..20] {
            assert_eq!(world.settle(&sub, &one.lock, Settle::Ack).await, Settled::Done);
        }
        let settle = held.iter().chain(&rest).map(|one| (one.lock.clone(), Settle::Ack)).collect();
        let settled = world.hot.settle_and_start(&sub, SettleAndStart { settle, start: Vec::new() }).await.unwrap().settled;
        assert!(settled[..20].iter().all(|settled| *settled == Settled::Lost), "these were settled already");
        assert!(settled[20..].iter().all(|settled| *settled == Settled::Done));
        let stats = world.hot.stats(&topic).await.unwrap();
        assert_eq!((stats.length, stats.subscriptions[0].acked, stats.subscriptions[0].pending), (0, 900, 0));
    }
}
