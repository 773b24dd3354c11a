//! Topics, messages, deliveries and dead letters.

use chronos_db::messaging::{DeliveryStatus, Messaging, NewMessage};
use chronos_db::{Timestamp, json};
use futures::TryStreamExt as _;
use futures::future::join_all;

use super::{Ground, everywhere};

everywhere!(
    a_topic_is_ensured_once_and_changes_its_shards_only_on_request,
    a_message_is_saved_once,
    many_messages_are_saved_at_once,
    namespaces_do_not_meet,
    pages_of_messages_never_skip_or_repeat,
    messages_are_listed_between_two_times,
    a_delivery_never_goes_backwards,
    deliveries_are_listed_by_message,
    a_dead_letter_is_saved_once_per_subscription,
    messages_deliveries_and_dead_letters_end_by_their_retention,
);

fn of(ground: &Ground) -> Messaging {
    ground.shared().messaging("tenant-a").unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

async fn a_topic_is_ensured_once_and_changes_its_shards_only_on_request(ground: Ground) {
    let topics = of(&ground).topics();
    let ensured =
        join_all((0..4).map(|_| tokio::spawn(topics.ensure("payments").shards(4).into_future()))).await;
    assert!(ensured.into_iter().all(|topic| topic.unwrap().unwrap().shards == 4));
    assert_eq!(topics.ensure("payments").await.unwrap().shards, 4);
    let changed = topics.ensure("payments").shards(8).await.unwrap();
    let stored = topics.get("payments").await.unwrap().unwrap();
    assert_eq!((stored.shards, stored.created_at), (8, changed.created_at));
    assert_eq!(topics.ensure("alerts").await.unwrap().shards, 1);
    assert!(topics.ensure("alerts").shards(0).await.is_err());
    let names: Vec<_> =
        topics.list().limit(1).stream().map_ok(|topic| topic.topic).try_collect().await.unwrap();
    assert_eq!(names, ["alerts", "payments"]);
    assert_eq!(topics.get("none").await.unwrap(), None);
    assert!(topics.delete("alerts").await.unwrap());
    assert!(!topics.delete("alerts").await.unwrap());
    assert_eq!(topics.get("alerts").await.unwrap(), None);
}

async fn a_message_is_saved_once(ground: Ground) {
    let messages = of(&ground).messages();
    let save = |payload| {
        messages
            .save("payments", "171223123-0", payload)
            .headers(json!({"type": "payment.created"}))
            .first_seen_at(at(5))
    };
    let saved = join_all((0..4).map(|_| tokio::spawn(save(json!({"amount": 100})).into_future()))).await;
    assert_eq!(saved.into_iter().filter(|saved| *saved.as_ref().unwrap().as_ref().unwrap()).count(), 1);
    assert!(!save(json!({"amount": 999})).await.unwrap());
    let stored = messages.get("payments", "171223123-0").await.unwrap().unwrap();
    assert_eq!(
        (stored.payload, stored.headers),
        (json!({"amount": 100}), Some(json!({"type": "payment.created"})))
    );
    assert_eq!((stored.first_seen_at, stored.size), (at(5), 14));
    assert_eq!(messages.list("payments").await.unwrap().items.len(), 1);
    assert!(messages.save("payments", "2", json!(1)).headers(json!("text")).await.is_err());
}

async fn many_messages_are_saved_at_once(ground: Ground) {
    let messages = of(&ground).messages();
    messages.save("t", "3", json!("first")).await.unwrap();
    let all: Vec<_> = (0..600).map(|n| NewMessage::new("t", n.to_string(), json!(n))).collect();
    let mut twice = all.clone();
    twice.push(NewMessage::new("t", "599", json!("again")));
    let saved = messages.save_many(twice).await.unwrap();
    let old: Vec<_> = saved.iter().enumerate().filter(|(_, new)| !**new).map(|(n, _)| n).collect();
    assert_eq!(old, [3, 600]);
    assert!(messages.save_many(all).await.unwrap().iter().all(|new| !new));
    assert_eq!(messages.get("t", "3").await.unwrap().unwrap().payload, json!("first"));
    let count = messages
        .list("t")
        .limit(100)
        .stream()
        .unwrap()
        .try_fold(0, |count, _| async move { Ok(count + 1) })
        .await
        .unwrap();
    assert_eq!(count, 600);
}

async fn namespaces_do_not_meet(ground: Ground) {
    let messaging = of(&ground);
    for namespace in ["one", "two"] {
        messaging.topics().ensure("t").namespace(namespace).shards(2).await.unwrap();
        assert!(messaging.messages().save("t", "1", json!(namespace)).namespace(namespace).await.unwrap());
        assert!(
            messaging.dead_letters().save("t", "1", json!(namespace)).namespace(namespace).await.unwrap()
        );
    }
    assert_eq!(
        messaging.messages().get("t", "1").namespace("two").await.unwrap().unwrap().payload,
        json!("two")
    );
    assert_eq!(messaging.messages().get("t", "1").await.unwrap(), None);
    assert_eq!(messaging.messages().list("t").await.unwrap().items, []);
    assert_eq!(messaging.dead_letters().list("t").namespace("one").await.unwrap().items.len(), 1);
    assert_eq!(messaging.topics().list().await.unwrap().items, []);
    assert!(messaging.topics().delete("t").namespace("one").await.unwrap());
    assert!(messaging.topics().get("t").namespace("two").await.unwrap().is_some());
}

async fn pages_of_messages_never_skip_or_repeat(ground: Ground) {
    let messages = of(&ground).messages();
    // Many of one moment: the time alone would not tell where a page ended.
    for n in 0..30 {
        messages.save("t", n.to_string(), json!(n)).first_seen_at(at(n / 10)).await.unwrap();
    }
    for oldest_first in [false, true] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut list = messages.list("t").limit(7);
            if oldest_first {
                list = list.oldest_first();
            }
            if let Some(cursor) = after {
                list = list.after(cursor);
            }
            let page = list.await.unwrap();
            seen.extend(page.items);
            // What comes meanwhile is met or not, but moves nothing.
            messages
                .save("t", format!("new-{oldest_first}-{}", seen.len()), json!(0))
                .first_seen_at(at(1))
                .await
                .unwrap();
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => break,
            }
        }
        let times: Vec<_> = seen.iter().map(|message| message.first_seen_at).collect();
        let sorted = if oldest_first { times.is_sorted() } else { times.iter().rev().is_sorted() };
        assert!(sorted, "{times:?}");
        let mut ids: Vec<_> = seen.iter().map(|message| message.msg_id.clone()).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!((0..30).all(|n| ids.contains(&n.to_string())));
    }
    assert!(messages.list("t").after("nonsense").await.is_err());
    assert!(messages.list("t").limit(0).await.is_err());
}

async fn messages_are_listed_between_two_times(ground: Ground) {
    let messages = of(&ground).messages();
    for n in 0..5 {
        messages.save("t", n.to_string(), json!(n)).first_seen_at(at(n)).await.unwrap();
    }
    messages.save("other", "9", json!(9)).first_seen_at(at(2)).await.unwrap();
    let ids = |page: chronos_db::Page<chronos_db::messaging::Message>| {
        page.items.into_iter().map(|message| message.msg_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(messages.list("t").from(at(1)).until(at(4)).await.unwrap()), ["3", "2", "1"]);
    assert_eq!(ids(messages.list("t").from(at(3)).oldest_first().await.unwrap()), ["3", "4"]);
    assert_eq!(ids(messages.list("t").until(at(1)).await.unwrap()), ["0"]);
}

async fn a_delivery_never_goes_backwards(ground: Ground) {
    let deliveries = of(&ground).deliveries().unwrap();
    use DeliveryStatus::{Ack, Dead, Nack, Pending};
    let append = |attempt, status| deliveries.append("t", "s", "1", attempt, status).consumer_id("worker-1");
    assert_eq!(append(1, Pending).ts(at(0)).await.unwrap().status, Pending);
    assert_eq!(append(1, Ack).ts(at(1)).await.unwrap().status, Ack);
    for late in [Pending, Nack, Dead] {
        let recorded = append(1, late).ts(at(2)).await.unwrap();
        assert_eq!((recorded.status, recorded.ts), (Ack, at(1)));
    }
    assert_eq!(append(2, Nack).reason("busy").await.unwrap().reason.as_deref(), Some("busy"));
    assert_eq!(append(2, Pending).await.unwrap().status, Nack);
    let dead = append(2, Dead).await.unwrap();
    assert_eq!((dead.status, dead.reason.as_deref()), (Dead, Some("busy")));
    // All at once, in any order.
    let all = [Pending, Ack, Pending, Ack, Nack].map(|status| tokio::spawn(append(3, status).into_future()));
    join_all(all).await.into_iter().for_each(|appended| drop(appended.unwrap().unwrap()));
    let listed = deliveries.list_by_message("t", "1").await.unwrap();
    let listed: Vec<_> = listed.iter().map(|delivery| (delivery.attempt, delivery.status)).collect();
    assert_eq!(listed, [(1, Ack), (2, Dead), (3, Ack)]);
}

async fn deliveries_are_listed_by_message(ground: Ground) {
    let deliveries = of(&ground).deliveries().unwrap();
    for (subscription, message, attempt) in [("b", "1", 2), ("b", "1", 1), ("a", "1", 1), ("a", "2", 1)] {
        deliveries.append("t", subscription, message, attempt, DeliveryStatus::Pending).await.unwrap();
    }
    let of_message = deliveries.list_by_message("t", "1").await.unwrap();
    let of_message: Vec<_> = of_message.iter().map(|one| (one.subscription.as_str(), one.attempt)).collect();
    assert_eq!(of_message, [("a", 1), ("b", 1), ("b", 2)]);
    assert_eq!(deliveries.list_by_message("t", "1").subscription("b").await.unwrap().len(), 2);
    assert_eq!(deliveries.list_by_message("t", "1").namespace("n").await.unwrap(), []);
}

async fn a_dead_letter_is_saved_once_per_subscription(ground: Ground) {
    let letters = of(&ground).dead_letters();
    let save = |subscription: &str| {
        letters
            .save("payments", "1", json!({"orderId": "123"}))
            .subscription(subscription)
            .headers(json!({"type": "payment.created"}))
            .deliveries(5)
            .reason("max_retries_exceeded")
            .failed_at(at(3))
    };
    let saved = join_all((0..4).map(|_| tokio::spawn(save("s").into_future()))).await;
    assert_eq!(saved.into_iter().filter(|saved| *saved.as_ref().unwrap().as_ref().unwrap()).count(), 1);
    assert!(!save("s").reason("other").await.unwrap());
    assert!(save("another").await.unwrap());
    let stored = letters.get("payments", "1").subscription("s").await.unwrap().unwrap();
    assert_eq!(
        (stored.deliveries, stored.reason.as_deref(), stored.failed_at),
        (5, Some("max_retries_exceeded"), at(3))
    );
    assert_eq!(
        letters.list("payments").limit(1).stream().unwrap().try_collect::<Vec<_>>().await.unwrap().len(),
        2
    );
    assert_eq!(letters.list("payments").subscription("s").await.unwrap().items, [stored]);
    assert_eq!(letters.list("payments").from(at(4)).await.unwrap().items, []);
    assert!(letters.delete("payments", "1").subscription("s").await.unwrap());
    assert!(!letters.delete("payments", "1").subscription("s").await.unwrap());
    assert_eq!(letters.list("payments").await.unwrap().items.len(), 1);
}

async fn messages_deliveries_and_dead_letters_end_by_their_retention(ground: Ground) {
    let chronos = ground.shared();
    let (messaging, other) = (chronos.messaging("tenant-a").unwrap(), chronos.messaging("tenant-b").unwrap());
    for messaging in [&messaging, &other] {
        let message = |n: u32| {
            NewMessage::new("t", n.to_string(), json!(n)).retention_days(if n < 290 { 1 } else { 9 })
        };
        messaging.messages().save_many((0..300).map(message).collect()).await.unwrap();
    }
    messaging.messages().save("t", "endless", json!(0)).await.unwrap();
    messaging.dead_letters().save("t", "1", json!(0)).retention_days(1).await.unwrap();
    let deliveries = messaging.deliveries().unwrap();
    deliveries.append("t", "s", "1", 1, DeliveryStatus::Ack).retention_days(1).await.unwrap();
    assert_eq!(messaging.prune().await.unwrap().total(), 0);
    let expires = messaging.dead_letters().get("t", "1").await.unwrap().unwrap().expires_at.unwrap();
    let later = expires.plus_millis(60_000);
    assert_eq!(messaging.prune().at(later).limit(10).await.unwrap().messages, 10);
    let pruned = messaging.prune().at(later).await.unwrap();
    assert_eq!(
        pruned.to_json(),
        json!({"shared_memory": 0, "messages": 280, "deliveries": 0, "dead_letters": 0})
    );
    assert_eq!(messaging.messages().list("t").await.unwrap().items.len(), 11);
    assert_eq!(messaging.dead_letters().list("t").await.unwrap().items, []);
    assert_eq!(deliveries.list_by_message("t", "1").await.unwrap(), []);
    // Of this tenant only.
    assert!(other.messages().get("t", "0").await.unwrap().is_some());
}
