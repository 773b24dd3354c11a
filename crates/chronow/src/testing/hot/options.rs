//! Topics, subscriptions, their options and names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bus, calm, kind, message, text, texts, until};
use crate::hot::{
    DiscardPolicy, HotTier, Settle, Settled, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch,
};
use crate::{ErrorKind, Scope, SubscriptionName, TopicName};

/// A new topic has the defaults but what was given.
pub async fn a_new_topic_has_the_defaults_but_what_was_given(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    assert_eq!(bus.hot.topic(&bus.topic).await.unwrap(), Some(TopicOptions::default()));
    let other = TopicName::new(&bus.scope, "other").unwrap();
    let patch = TopicPatch::default().max_len(7).overflow(DiscardPolicy::DropOldest);
    let options = bus.hot.ensure_topic(&other, &patch).await.unwrap();
    assert_eq!(
        options,
        TopicOptions { max_len: 7, overflow: DiscardPolicy::DropOldest, ..TopicOptions::default() }
    );
}

/// Ensuring a topic again changes only what is given.
pub async fn ensuring_a_topic_again_changes_only_what_is_given(hot: Arc<dyn HotTier>) {
    let first = TopicPatch::default()
        .shards(2)
        .max_len(50)
        .ttl(Some(Duration::from_millis(60_000)))
        .dedup_window(Duration::from_millis(5_000))
        .warm(true);
    let bus = Bus::with(hot, first).await;
    let before = bus.hot.topic(&bus.topic).await.unwrap().unwrap();
    assert_eq!(bus.hot.ensure_topic(&bus.topic, &TopicPatch::default()).await.unwrap(), before);
    let patch = TopicPatch::default().max_len(60).shards(9);
    let after = bus.hot.ensure_topic(&bus.topic, &patch).await.unwrap();
    assert_eq!(
        after,
        TopicOptions { max_len: 60, ..before },
        "all but the length stays, and the shards are fixed"
    );
    assert_eq!(bus.hot.topic(&bus.topic).await.unwrap(), Some(after.clone()));
    let forever = TopicPatch::default().ttl(None);
    assert_eq!(
        bus.hot.ensure_topic(&bus.topic, &forever).await.unwrap(),
        TopicOptions { ttl: None, ..after }
    );
}

/// Ensuring a subscription again changes only what is given.
pub async fn ensuring_a_subscription_again_changes_only_what_is_given(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.named("billing");
    let plain = bus.hot.ensure_subscription(&subscription, &SubscriptionPatch::default()).await.unwrap();
    assert_eq!(plain, SubscriptionOptions::default());
    let tuned = SubscriptionPatch::default()
        .max_deliveries(9)
        .backoff([1, 2, 3].map(Duration::from_millis))
        .filter(Some(chronos_db::json!({ "headers.type": "a" })))
        .auto_delete(Some(Duration::from_millis(3_600_000)))
        .dead_letters(false);
    let tuned = bus.hot.ensure_subscription(&subscription, &tuned).await.unwrap();
    assert_eq!((tuned.max_deliveries, tuned.visibility), (9, Duration::from_secs(30)));
    let again = bus.hot.ensure_subscription(&subscription, &SubscriptionPatch::default()).await.unwrap();
    assert_eq!(again, tuned);
    assert_eq!(bus.hot.subscription(&subscription).await.unwrap(), Some(tuned.clone()));
    let patch = SubscriptionPatch::default().visibility(Duration::from_millis(5_000));
    let changed = bus.hot.ensure_subscription(&subscription, &patch).await.unwrap();
    assert_eq!(changed, SubscriptionOptions { visibility: Duration::from_millis(5_000), ..tuned });
}

/// A filter can be taken away again.
pub async fn a_filter_can_be_taken_away_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filter = chronos_db::json!({ "payload.text": "b" });
    let subscription = bus.subscribe_with("s", calm().filter(Some(filter))).await;
    bus.publish(&["a", "b"]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["b"]);
    bus.nothing(&subscription).await;
    bus.subscribe_with("s", SubscriptionPatch::default().filter(None)).await;
    bus.publish(&["c"]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["c"]);
}

/// Options out of bounds are refused, and change nothing.
pub async fn options_out_of_bounds_are_refused(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let before = bus.hot.subscription(&subscription).await.unwrap();
    let bad = [
        SubscriptionPatch::default().max_deliveries(0),
        SubscriptionPatch::default().visibility(Duration::from_millis(1)),
        SubscriptionPatch::default().backoff([]),
        SubscriptionPatch::default().filter(Some(chronos_db::json!({ "a": { "$where": "1" } }))),
    ];
    for patch in bad {
        assert_eq!(
            kind(bus.hot.ensure_subscription(&subscription, &patch).await),
            ErrorKind::Validation,
            "{patch:?}"
        );
    }
    assert_eq!(bus.hot.subscription(&subscription).await.unwrap(), before);
    let topic = TopicName::new(&bus.scope, "bad").unwrap();
    for patch in [TopicPatch::default().shards(0), TopicPatch::default().max_len(0)] {
        assert_eq!(kind(bus.hot.ensure_topic(&topic, &patch).await), ErrorKind::Validation, "{patch:?}");
    }
    assert_eq!(bus.hot.topic(&topic).await.unwrap(), None, "a refused topic is not made");
}

/// A subscription needs its topic.
pub async fn a_subscription_needs_its_topic(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let absent = TopicName::new(&bus.scope, "absent").unwrap();
    let subscription = SubscriptionName::new(&absent, "s").unwrap();
    assert_eq!(kind(bus.hot.ensure_subscription(&subscription, &calm()).await), ErrorKind::NotFound);
    assert_eq!(bus.hot.topic(&absent).await.unwrap(), None);
    assert_eq!(bus.hot.subscription(&subscription).await.unwrap(), None);
}

/// What does not exist is said to be missing, and is not made by using it.
pub async fn what_does_not_exist_is_said_to_be_missing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let absent = TopicName::new(&bus.scope, "absent").unwrap();
    assert_eq!(kind(bus.hot.publish(&absent, vec![message("x")]).await), ErrorKind::NotFound);
    assert_eq!(kind(bus.hot.stats(&absent).await), ErrorKind::NotFound);
    assert_eq!(
        kind(bus.hot.pull(&SubscriptionName::new(&absent, "s").unwrap(), 1).await),
        ErrorKind::NotFound
    );
    assert_eq!(kind(bus.hot.pull(&bus.named("absent"), 1).await), ErrorKind::NotFound);
    assert!(!bus.hot.delete_topic(&absent).await.unwrap());
    assert!(!bus.hot.delete_subscription(&bus.named("absent")).await.unwrap());
    assert_eq!(bus.hot.topics(&bus.scope).await.unwrap(), ["orders"]);
    assert!(bus.hot.subscriptions(&bus.topic).await.unwrap().is_empty());
}

/// Topics and subscriptions are listed by name.
pub async fn topics_and_subscriptions_are_listed_by_name(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    for name in ["zebra", "ant", "mule"] {
        bus.other(name).await;
        bus.subscribe(name).await;
    }
    assert_eq!(bus.hot.topics(&bus.scope).await.unwrap(), ["ant", "mule", "orders", "zebra"]);
    assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["ant", "mule", "zebra"]);
    let stats = bus.hot.stats(&bus.topic).await.unwrap();
    let names: Vec<_> = stats.subscriptions.into_iter().map(|stats| stats.subscription).collect();
    assert_eq!(names, ["ant", "mule", "zebra"]);
}

/// The library's own subscriptions are hidden, but work like others.
pub async fn internal_subscriptions_are_hidden_but_work(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let internal = SubscriptionName::internal(&bus.topic, "__warm");
    bus.hot.ensure_subscription(&internal, &calm()).await.unwrap();
    bus.subscribe("s").await;
    assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["s"]);
    bus.publish(&["a"]).await;
    let (_, settled) = bus.handle(&internal, Settle::Ack).await;
    assert_eq!(settled, Settled::Done);
    let stats = bus.hot.stats(&bus.topic).await.unwrap();
    assert_eq!(stats.subscriptions.len(), 1);
}

/// Tenants and namespaces with the same names inside do not mix.
pub async fn scopes_do_not_mix(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    for scope in [
        Scope::new("suite2", bus.scope.namespace()).unwrap(),
        Scope::new("suite", &format!("{}x", bus.scope.namespace())).unwrap(),
    ] {
        let topic = TopicName::new(&scope, "orders").unwrap();
        assert_eq!(bus.hot.topic(&topic).await.unwrap(), None);
        bus.hot.ensure_topic(&topic, &TopicPatch::default()).await.unwrap();
        let same = Bus { topic, scope, hot: Arc::clone(&bus.hot) };
        let theirs = same.subscribe("s").await;
        same.publish(&["theirs"]).await;
        bus.nothing(&subscription).await;
        assert_eq!(texts(&same.take(&theirs, 1).await), ["theirs"]);
        assert_eq!(bus.hot.topics(&same.scope).await.unwrap(), ["orders"]);
    }
}

/// Names of all scripts, with dots, dashes and spaces, do not mix.
pub async fn names_of_all_scripts_with_dots_and_dashes_do_not_mix(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let names = [
        "a",
        "a.b",
        "a-b",
        "a b",
        "A",
        "naïve-ß",
        "注文",
        "заказы",
        "*",
        "%",
        "_",
        "a_",
        "[x]",
        "it's",
        "\"q\"",
    ];
    let mut all = Vec::new();
    for topic in names {
        let topic = bus.other(topic).await;
        for subscription in names {
            all.push((topic.clone(), topic.subscribe(subscription).await));
        }
        topic.publish(&[topic.topic.name()]).await;
    }
    for (topic, subscription) in &all {
        let delivery = topic.one(subscription).await;
        assert_eq!(text(&delivery.message.payload), topic.topic.name());
        topic.nothing(subscription).await;
    }
    let mut expected: Vec<_> =
        names.iter().map(|name| (*name).to_owned()).chain(["orders".to_owned()]).collect();
    expected.sort_unstable();
    assert_eq!(bus.hot.topics(&bus.scope).await.unwrap(), expected);
}

/// Concurrent ensures agree.
pub async fn concurrent_ensures_agree(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let ensures = (0..16).map(|n| {
        let bus = bus.clone();
        async move {
            let topic = TopicName::new(&bus.scope, "contended").unwrap();
            bus.hot.ensure_topic(&topic, &TopicPatch::default().max_len(100)).await.unwrap();
            let subscription = SubscriptionName::new(&topic, &format!("s{}", n % 4)).unwrap();
            bus.hot.ensure_subscription(&subscription, &calm()).await.unwrap();
        }
    });
    futures::future::join_all(ensures).await;
    let topic = TopicName::new(&bus.scope, "contended").unwrap();
    let bus = Bus { topic, ..bus };
    assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["s0", "s1", "s2", "s3"]);
    bus.publish(&["a"]).await;
    for n in 0..4 {
        assert_eq!(texts(&bus.take(&bus.named(&format!("s{n}")), 1).await), ["a"]);
    }
}

/// A deleted topic leaves nothing: made again, it is new.
pub async fn a_deleted_topic_leaves_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, TopicPatch::default().max_len(9)).await;
    let subscription = bus.subscribe("s").await;
    let dedup = || crate::hot::OutboundMessage { dedup_id: Some("once".to_owned()), ..message("dedup") };
    bus.send(dedup()).await;
    bus.publish(&["a", "b", "c", "d"]).await;
    bus.dead_letter(&subscription, "bad").await;
    bus.handle(&subscription, super::retry_after(Duration::from_secs(60))).await;
    bus.handle(&subscription, Settle::Defer).await;
    let held = bus.one(&subscription).await;
    assert!(bus.hot.delete_topic(&bus.topic).await.unwrap());
    assert!(!bus.hot.delete_topic(&bus.topic).await.unwrap());
    assert_eq!(bus.hot.topic(&bus.topic).await.unwrap(), None);
    assert!(bus.hot.topics(&bus.scope).await.unwrap().is_empty());
    assert_eq!(kind(bus.hot.publish(&bus.topic, vec![message("x")]).await), ErrorKind::NotFound);
    assert_eq!(kind(bus.hot.pull(&subscription, 1).await), ErrorKind::NotFound);
    assert_eq!(bus.hot.subscription(&subscription).await.unwrap(), None);

    assert_eq!(
        bus.hot.ensure_topic(&bus.topic, &TopicPatch::default()).await.unwrap(),
        TopicOptions::default()
    );
    assert!(bus.hot.subscriptions(&bus.topic).await.unwrap().is_empty());
    bus.subscribe_with("s", calm().start(crate::hot::DeliverPolicy::Earliest)).await;
    bus.nothing(&subscription).await;
    bus.at_rest(&subscription).await;
    assert!(bus.dead(&subscription).await.is_empty());
    assert!(bus.hot.peek(&subscription, 10).await.unwrap().is_empty());
    assert_eq!(bus.settle(&subscription, &held.lock, Settle::Ack).await, Settled::Lost);
    assert!(!bus.send(dedup()).await.duplicate);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["dedup"]);
}

/// A deleted subscription leaves nothing: made again, it is new; others don't notice.
pub async fn a_deleted_subscription_leaves_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, other) = (bus.subscribe("s").await, bus.subscribe("other").await);
    bus.publish(&["a", "b", "c", "d"]).await;
    bus.dead_letter(&subscription, "bad").await;
    bus.handle(&subscription, super::retry_after(Duration::from_secs(60))).await;
    let held = bus.one(&subscription).await;
    assert!(bus.hot.delete_subscription(&subscription).await.unwrap());
    assert!(!bus.hot.delete_subscription(&subscription).await.unwrap());
    assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["other"]);
    assert_eq!(kind(bus.hot.pull(&subscription, 1).await), ErrorKind::NotFound);
    bus.subscribe("s").await;
    bus.nothing(&subscription).await;
    assert!(bus.dead(&subscription).await.is_empty());
    bus.at_rest(&subscription).await;
    assert_eq!(bus.settle(&subscription, &held.lock, Settle::Ack).await, Settled::Lost);
    let rest = bus.take(&other, 4).await;
    assert_eq!(texts(&rest), ["a", "b", "c", "d"]);
}

/// A subscription nobody pulls from deletes itself.
pub async fn an_unused_subscription_deletes_itself(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    bus.subscribe("kept").await;
    let subscription = bus.subscribe_with("s", calm().auto_delete(Some(Duration::from_millis(300)))).await;
    bus.publish(&["a"]).await;
    until("the unused subscription goes", || async {
        bus.hot.subscription(&subscription).await.unwrap().is_none()
    })
    .await;
    assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["kept"]);
    assert_eq!(kind(bus.hot.pull(&subscription, 1).await), ErrorKind::NotFound);
    bus.publish(&["b"]).await;
    let kept = bus.named("kept");
    let both = bus.take(&kept, 2).await;
    bus.ack(&kept, &both).await;
    until("what only the gone subscription needed goes", || async {
        bus.hot.stats(&bus.topic).await.unwrap().length == 0
    })
    .await;
}

/// A subscription in use does not delete itself.
pub async fn a_subscription_in_use_does_not_delete_itself(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().auto_delete(Some(Duration::from_millis(5_000)))).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(6_000) {
        bus.nothing(&subscription).await;
        bus.hot.wait(&subscription, Duration::from_millis(200)).await.unwrap();
    }
    assert!(bus.hot.subscription(&subscription).await.unwrap().is_some());
}

/// A subscription does not delete itself while a consumer holds a message of it, whichever process looks;
/// also on a sharded topic.
pub async fn a_subscription_at_work_does_not_delete_itself(hot: Arc<dyn HotTier>) {
    for shards in [1, 3] {
        let bus = Bus::with(Arc::clone(&hot), TopicPatch::default().shards(shards)).await;
        let patch =
            calm().auto_delete(Some(Duration::from_millis(300))).visibility(Duration::from_millis(60_000));
        let subscription = bus.subscribe_with("s", patch).await;
        let other = bus.subscribe("other").await;
        // In more than one shard.
        bus.publish_all((0..6).map(|n| super::keyed(&format!("k{n}"), &format!("m{n}"))).collect()).await;
        let held = bus.take(&subscription, 6).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(900) {
            bus.publish(&["tick"]).await;
            assert_eq!(bus.hot.subscriptions(&bus.topic).await.unwrap(), ["other", "s"]);
            assert!(
                bus.hot.subscription(&subscription).await.unwrap().is_some(),
                "a message of it is locked"
            );
            bus.hot.pull(&other, 1).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let locks = held.iter().map(|delivery| delivery.lock.clone()).collect();
        assert_eq!(bus.hot.renew(&subscription, locks).await.unwrap(), [true; 6]);
        bus.ack(&subscription, &held).await;
        until("nobody is at work any more", || async {
            bus.hot.subscription(&subscription).await.unwrap().is_none()
        })
        .await;
    }
}

/// Settlements count as use of a subscription, not only pulls.
pub async fn settlements_count_as_use(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().auto_delete(Some(Duration::from_millis(2_000)))).await;
    bus.publish(&["a"]).await;
    let held = bus.take(&subscription, 1).await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    bus.ack(&subscription, &held).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(bus.hot.subscription(&subscription).await.unwrap().is_some(), "it was used a moment ago");
    bus.nothing(&subscription).await;
}

/// A process that publishes or pulls notices that the options of the topic have changed, and nothing while
/// they have not.
pub async fn a_change_of_a_topic_is_noticed_on_the_way(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a"]).await;
    let got = bus.take(&subscription, 1).await;
    bus.ack(&subscription, &got).await;
    let before = bus.hot.changes(&bus.topic);
    bus.publish(&["b"]).await;
    let got = bus.take(&subscription, 1).await;
    bus.ack(&subscription, &got).await;
    assert_eq!(bus.hot.changes(&bus.topic), before, "nothing has changed");
    let change = |warm| TopicPatch::default().warm(warm);
    bus.hot.ensure_topic(&bus.topic, &change(true)).await.unwrap();
    bus.publish(&["c"]).await;
    let published = bus.hot.changes(&bus.topic);
    assert!(published > before, "a publish notices it");
    bus.hot.ensure_topic(&bus.topic, &change(false)).await.unwrap();
    bus.hot.pull(&subscription, 1).await.unwrap();
    let pulled = bus.hot.changes(&bus.topic);
    assert!(pulled > published, "a pull notices it");
    let own = SubscriptionName::internal(&bus.topic, "__warm");
    bus.hot.ensure_subscription(&own, &calm()).await.unwrap();
    bus.hot.pull(&subscription, 1).await.unwrap();
    let owned = bus.hot.changes(&bus.topic);
    assert!(owned > pulled, "the library has something to do for it");
    bus.hot.delete_topic(&bus.topic).await.unwrap();
    bus.hot.ensure_topic(&bus.topic, &change(false)).await.unwrap();
    bus.publish(&["d"]).await;
    assert!(bus.hot.changes(&bus.topic) > owned, "it is another topic");
}

/// The store's time is about now, and doesn't go back.
pub async fn the_stores_time_is_about_now(hot: Arc<dyn HotTier>) {
    let first = hot.now().await.unwrap();
    let second = hot.now().await.unwrap();
    assert!(second >= first);
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!((i128::from(second.as_millis()) - i128::try_from(here).unwrap()).abs() < 60_000);
    assert!(!hot.ping().await.unwrap().is_empty());
}

/// A closed hot tier refuses everything.
pub async fn a_closed_hot_tier_refuses_everything(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.hot.close().await.unwrap();
    assert_eq!(kind(bus.hot.publish(&bus.topic, vec![message("x")]).await), ErrorKind::Closed);
    assert_eq!(kind(bus.hot.pull(&subscription, 1).await), ErrorKind::Closed);
    assert_eq!(kind(bus.hot.get(&bus.scope, &["k".to_owned()]).await), ErrorKind::Closed);
    assert_eq!(kind(bus.hot.ping().await), ErrorKind::Closed);
    bus.hot.close().await.unwrap();
}
