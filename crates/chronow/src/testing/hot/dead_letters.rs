//! Dead letters and their way back.

use crate::Page;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bus, calm, message, retry, text, texts};
use crate::hot::{HotTier, OutboundMessage, Select, Settle, Settled};

/// A dead letter tells what happened, with the message as it was.
pub async fn a_dead_letter_tells_what_happened(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let headers = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
    let sent = OutboundMessage {
        headers,
        key: Some("k".to_owned()),
        content_type: "text/plain".to_owned(),
        payload: "\0plain".into(),
        ..OutboundMessage::default()
    };
    let id = bus.send(sent.clone()).await.id;
    bus.handle(&subscription, retry("first")).await;
    let before = bus.hot.now().await.unwrap();
    let delivery = bus.dead_letter(&subscription, "card declined: ü").await;
    let dead = bus.dead(&subscription).await.remove(0);
    assert_eq!(dead.message.id, id);
    assert_eq!(
        (dead.message.payload, dead.message.content_type, dead.message.headers, dead.message.key),
        (sent.payload, sent.content_type, sent.headers, sent.key)
    );
    assert_eq!(
        (dead.reason.as_str(), dead.deliveries, dead.message.published_at),
        ("card declined: ü", 2, delivery.message.published_at)
    );
    assert!(dead.failed_at >= before && dead.failed_at <= bus.hot.now().await.unwrap());
    bus.nothing(&subscription).await;
}

/// A dead letter is of one subscription.
pub async fn a_dead_letter_is_of_one_subscription(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["a"]).await;
    bus.dead_letter(&one, "bad").await;
    assert!(bus.dead(&two).await.is_empty());
    let got = bus.take(&two, 1).await;
    bus.ack(&two, &got).await;
    assert_eq!(bus.dead(&one).await.len(), 1, "it stays when all others have settled the message");
    assert_eq!(text(&bus.dead(&one).await[0].message.payload), "a");
}

async fn dead_lettered(bus: &Bus, name: &str, count: usize) -> (crate::SubscriptionName, Vec<String>) {
    let subscription = bus.subscribe(name).await;
    let names: Vec<String> = (0..count).map(|n| format!("d{n:02}")).collect();
    let ids = bus.publish(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for _ in 0..count {
        bus.dead_letter(&subscription, "bad").await;
    }
    (subscription, ids)
}

/// Dead letters are listed by their ids, oldest first, behind a cursor and from a time on, and are read by
/// their ids.
pub async fn dead_letters_are_listed_without_being_read(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, mut ids) = dead_lettered(&bus, "s", 7).await;
    let begin = crate::Timestamp::from_millis(0);
    let list = async |from, after: Option<&str>, limit| {
        bus.hot.dead_letter_ids(&subscription, from, after, limit).await.unwrap()
    };
    let all = list(begin, None, 100).await;
    let dead = bus.dead(&subscription).await;
    assert_eq!(
        all.iter().map(|letter| (&letter.id, letter.failed_at)).collect::<Vec<_>>(),
        dead.iter().map(|letter| (&letter.message.id, letter.failed_at)).collect::<Vec<_>>()
    );
    assert_eq!(list(begin, None, 3).await, all[..3]);
    for place in 0..all.len() {
        assert_eq!(list(begin, Some(&all[place].cursor), 100).await, all[place + 1..], "behind {place}");
        let from: Vec<_> =
            all.iter().filter(|letter| letter.failed_at >= all[place].failed_at).cloned().collect();
        assert_eq!(list(all[place].failed_at, None, 100).await, from, "from {place} on");
    }
    assert!(list(all[6].failed_at.plus_millis(1), None, 100).await.is_empty());
    ids.push("no-such-message".to_owned());
    let mut read = bus.hot.dead_letters_by_id(&subscription, &ids).await.unwrap();
    read.sort_by(|a, b| (a.failed_at, &a.message.id).cmp(&(b.failed_at, &b.message.id)));
    let mut expected = dead;
    expected.sort_by(|a, b| (a.failed_at, &a.message.id).cmp(&(b.failed_at, &b.message.id)));
    assert_eq!(read, expected);
}

/// Dead letters are paged, oldest first.
pub async fn dead_letters_are_paged_oldest_first(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, ids) = dead_lettered(&bus, "s", 25).await;
    let (mut all, mut after, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let Page { items: page, next, .. } =
            bus.hot.dead_letters(&subscription, after.as_deref(), 10).await.unwrap();
        assert!(page.len() <= 10);
        all.extend(page.into_iter().map(|dead| dead.message.id));
        pages += 1;
        assert!(pages < 10, "the pages never end");
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(all, ids);
    assert_eq!(bus.stats(&subscription).await.dead_letters, 25);
}

/// A redrive starts the count anew.
pub async fn a_redrive_starts_the_count_anew(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().max_deliveries(2)).await;
    let ids = bus.publish(&["a"]).await;
    bus.handle(&subscription, retry("one")).await;
    bus.handle(&subscription, retry("two")).await;
    assert_eq!(bus.hot.redrive(&subscription, &Select::All).await.unwrap(), 1);
    assert!(bus.dead(&subscription).await.is_empty());
    let again = bus.one(&subscription).await;
    assert_eq!((again.deliveries, &again.lock.id, text(&again.message.payload).as_str()), (0, &ids[0], "a"));
    assert!(bus.start(&subscription, &again.lock).await);
    assert_eq!(bus.settle(&subscription, &again.lock, retry("three")).await, Settled::Done);
    assert_eq!(bus.one(&subscription).await.deliveries, 1);
    assert_eq!(bus.hot.redrive(&subscription, &Select::All).await.unwrap(), 0);
}

/// A redrive reaches its subscription only.
pub async fn a_redrive_reaches_its_subscription_only(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let other = bus.subscribe("other").await;
    let (subscription, _) = dead_lettered(&bus, "s", 5).await;
    let got = bus.take(&other, 5).await;
    bus.ack(&other, &got).await;
    assert_eq!(bus.hot.redrive(&subscription, &Select::All).await.unwrap(), 5);
    let again = bus.take(&subscription, 5).await;
    assert_eq!(texts(&again), ["d00", "d01", "d02", "d03", "d04"]);
    bus.nothing(&other).await;
    bus.ack(&subscription, &again).await;
    bus.at_rest(&subscription).await;
    bus.at_rest(&other).await;
}

/// A redrive takes at most this many, the oldest first.
pub async fn a_redrive_may_take_the_oldest(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, ids) = dead_lettered(&bus, "s", 5).await;
    assert_eq!(bus.hot.redrive(&subscription, &Select::Oldest(2)).await.unwrap(), 2);
    assert_eq!(texts(&bus.take(&subscription, 2).await), ["d00", "d01"]);
    bus.nothing(&subscription).await;
    let left: Vec<_> = bus.dead(&subscription).await.into_iter().map(|dead| dead.message.id).collect();
    assert_eq!(left, ids[2..]);
}

/// A redrive may take some by id.
pub async fn a_redrive_may_take_some_by_id(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, ids) = dead_lettered(&bus, "s", 4).await;
    let select = Select::Ids(vec![ids[3].clone(), ids[1].clone(), "no-such-message".to_owned()]);
    assert_eq!(bus.hot.redrive(&subscription, &select).await.unwrap(), 2);
    let mut got = texts(&bus.take(&subscription, 2).await);
    got.sort_unstable();
    assert_eq!(got, ["d01", "d03"]);
    assert_eq!(bus.dead(&subscription).await.len(), 2);
}

/// A redriven message can fail again, and be redriven again.
pub async fn a_redriven_message_can_fail_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, ids) = dead_lettered(&bus, "s", 1).await;
    for n in 0..3 {
        assert_eq!(bus.hot.redrive(&subscription, &Select::Ids(ids.clone())).await.unwrap(), 1);
        bus.dead_letter(&subscription, &format!("again {n}")).await;
        let dead = bus.dead(&subscription).await;
        assert_eq!((dead.len(), dead[0].reason.clone(), dead[0].deliveries), (1, format!("again {n}"), 1));
    }
    bus.hot.redrive(&subscription, &Select::All).await.unwrap();
    let (_, settled) = bus.handle(&subscription, Settle::Ack).await;
    assert_eq!(settled, Settled::Done);
    bus.at_rest(&subscription).await;
    assert_eq!(bus.stats(&subscription).await.dead_letters, 0);
}

/// Dead letters can be purged: some, the oldest, all; messages stay.
pub async fn dead_letters_can_be_purged(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, ids) = dead_lettered(&bus, "s", 6).await;
    bus.publish(&["alive"]).await;
    assert_eq!(
        bus.hot.purge_dead_letters(&subscription, &Select::Ids(vec![ids[5].clone()])).await.unwrap(),
        1
    );
    assert_eq!(bus.hot.purge_dead_letters(&subscription, &Select::Oldest(2)).await.unwrap(), 2);
    let left: Vec<_> = bus.dead(&subscription).await.into_iter().map(|dead| dead.message.id).collect();
    assert_eq!(left, ids[2..5]);
    assert_eq!(bus.hot.purge_dead_letters(&subscription, &Select::All).await.unwrap(), 3);
    assert!(bus.dead(&subscription).await.is_empty());
    assert_eq!(bus.hot.redrive(&subscription, &Select::All).await.unwrap(), 0);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["alive"]);
}

/// A message that is not a dead letter cannot be redriven.
pub async fn an_unsettled_message_cannot_be_redriven(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let ids = bus.publish_all(vec![message("in flight"), message("unread")]).await;
    let held = bus.one(&subscription).await;
    assert_eq!(bus.hot.redrive(&subscription, &Select::Ids(ids.clone())).await.unwrap(), 0);
    assert_eq!(bus.hot.purge_dead_letters(&subscription, &Select::Ids(ids)).await.unwrap(), 0);
    bus.ack(&subscription, &[held]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["unread"]);
}

/// A redrive is a new life: the time that a message had, or by which it expired, does not count any more.
pub async fn a_redriven_message_does_not_expire_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let brief =
        |text: &str| OutboundMessage { ttl: Some(std::time::Duration::from_millis(300)), ..message(text) };
    bus.publish_all(vec![brief("failed")]).await;
    bus.dead_letter(&subscription, "bad").await;
    let end = bus.hot.now().await.unwrap().plus_millis(300);
    bus.publish_all(vec![brief("expired")]).await;
    super::until("its time is over", || async { bus.hot.now().await.unwrap() > end.plus_millis(300) }).await;
    bus.nothing(&subscription).await;
    let mut dead: Vec<String> =
        bus.dead(&subscription).await.into_iter().map(|letter| text(&letter.message.payload)).collect();
    dead.sort();
    assert_eq!(dead, ["expired", "failed"]);
    assert_eq!(bus.hot.redrive(&subscription, &Select::All).await.unwrap(), 2);
    let mut got = texts(&bus.take(&subscription, 2).await);
    got.sort_unstable();
    assert_eq!(got, ["expired", "failed"]);
}
