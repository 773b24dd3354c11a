//! Who holds a message, and what a hold is worth.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bus, calm, hasty, retry, text, texts, until};
use crate::hot::{HotTier, Lock, Settle, SettleAndStart, Settled, SubscriptionPatch};

/// Every delivery has a fresh token.
pub async fn every_delivery_has_a_fresh_token(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c"]).await;
    let mut tokens = BTreeSet::new();
    for _ in 0..3 {
        for delivery in bus.take(&subscription, 3).await {
            assert!(tokens.insert(delivery.lock.token.clone()), "a token was given out twice");
            assert_eq!(bus.settle(&subscription, &delivery.lock, Settle::Release).await, Settled::Done);
        }
    }
}

/// An acknowledged message never comes again.
pub async fn an_acknowledged_message_never_comes_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().visibility(Duration::from_millis(4_000))).await;
    bus.publish(&["a"]).await;
    let (delivery, settled) = bus.handle(&subscription, Settle::Ack).await;
    assert_eq!(settled, Settled::Done);
    until("its lock would be over", || async {
        let over = bus.hot.now().await.unwrap() > delivery.locked_until;
        bus.nothing(&subscription).await;
        bus.hot.wait(&subscription, Duration::from_millis(100)).await.unwrap();
        over
    })
    .await;
    bus.at_rest(&subscription).await;
}

/// A message is settled once, whatever the second settlement says.
pub async fn a_message_is_settled_once(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    for (first, second) in [
        (Settle::Ack, Settle::Ack),
        (Settle::Ack, retry("x")),
        (Settle::Ack, Settle::DeadLetter { reason: "x".to_owned() }),
        (Settle::Ack, Settle::Release),
        (Settle::Ack, Settle::Defer),
        (Settle::Release, Settle::Ack),
        (retry("x"), Settle::Ack),
        (Settle::Defer, Settle::Ack),
        (Settle::DeadLetter { reason: "x".to_owned() }, Settle::Ack),
    ] {
        bus.publish(&["a"]).await;
        let delivery = bus.one(&subscription).await;
        assert_ne!(bus.settle(&subscription, &delivery.lock, first.clone()).await, Settled::Lost);
        assert_eq!(
            bus.settle(&subscription, &delivery.lock, second.clone()).await,
            Settled::Lost,
            "{first:?}, then {second:?}"
        );
        assert!(!bus.start(&subscription, &delivery.lock).await);
        assert_eq!(bus.hot.renew(&subscription, vec![delivery.lock]).await.unwrap(), [false]);
        bus.hot.purge(&bus.topic).await.unwrap();
        bus.hot.purge_dead_letters(&subscription, &crate::hot::Select::All).await.unwrap();
    }
}

/// A wrong token settles and starts nothing.
pub async fn a_wrong_token_settles_and_starts_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b"]).await;
    let held = bus.take(&subscription, 2).await;
    let crossed = Lock { id: held[0].lock.id.clone(), token: held[1].lock.token.clone() };
    let empty = Lock { token: String::new(), ..crossed.clone() };
    let unknown = Lock { id: "no-such-message".to_owned(), ..crossed.clone() };
    for wrong in [crossed, empty, unknown] {
        assert_eq!(bus.settle(&subscription, &wrong, Settle::Ack).await, Settled::Lost);
        assert!(!bus.start(&subscription, &wrong).await);
        assert_eq!(bus.hot.renew(&subscription, vec![wrong]).await.unwrap(), [false]);
    }
    assert_eq!(bus.stats(&subscription).await.deliveries, 0);
    bus.ack(&subscription, &held).await;
}

/// A stale token settles nothing after the next delivery.
pub async fn a_stale_token_settles_nothing_after_the_next_delivery(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", hasty()).await;
    bus.publish(&["a"]).await;
    let stale = bus.one(&subscription).await;
    bus.subscribe("s").await;
    let fresh = bus.one(&subscription).await;
    assert_eq!(fresh.lock.id, stale.lock.id);
    assert_ne!(fresh.lock.token, stale.lock.token);
    for settle in [
        Settle::Ack,
        retry("late"),
        Settle::DeadLetter { reason: "late".to_owned() },
        Settle::Defer,
        Settle::Release,
    ] {
        assert_eq!(bus.settle(&subscription, &stale.lock, settle).await, Settled::Lost);
    }
    assert!(!bus.start(&subscription, &stale.lock).await);
    assert_eq!(bus.hot.renew(&subscription, vec![stale.lock]).await.unwrap(), [false]);
    bus.nothing(&subscription).await;
    assert!(bus.start(&subscription, &fresh.lock).await);
    bus.ack(&subscription, &[fresh]).await;
    assert_eq!(bus.stats(&subscription).await.deliveries, 1);
}

/// A lost lock does not hinder the others of the same step.
pub async fn a_lost_lock_does_not_hinder_its_neighbours(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c", "d"]).await;
    let held = bus.take(&subscription, 4).await;
    let lost = Lock { token: "stale".to_owned(), ..held[1].lock.clone() };
    let step = SettleAndStart {
        settle: vec![
            (held[0].lock.clone(), Settle::Ack),
            (lost.clone(), Settle::Ack),
            (held[2].lock.clone(), retry("again")),
        ],
        start: vec![lost, held[3].lock.clone()],
    };
    let outcome = bus.hot.settle_and_start(&subscription, step).await.unwrap();
    assert_eq!(outcome.settled, [Settled::Done, Settled::Lost, Settled::Done]);
    assert_eq!(outcome.started, [false, true]);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["c"]);
}

/// A lock that expires brings the message again, with everything it had.
pub async fn a_lock_that_expires_brings_the_message_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", hasty()).await;
    bus.publish(&["a"]).await;
    let begun = Instant::now();
    let first = bus.one(&subscription).await;
    let second = bus.one(&subscription).await;
    assert!(begun.elapsed() >= Duration::from_millis(195), "it came again while it was locked");
    assert_eq!(
        (&second.lock.id, &second.message.payload, second.message.published_at),
        (&first.lock.id, &first.message.payload, first.message.published_at)
    );
}

/// A start counts, and survives its holder.
pub async fn a_start_counts_and_survives_the_holder(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().visibility(Duration::from_millis(1_000))).await;
    bus.publish(&["a"]).await;
    let mut counted = 0;
    for _ in 0..3 {
        let delivery = bus.one(&subscription).await;
        assert_eq!(delivery.deliveries, counted);
        // On a very busy machine the lock may be lost by now; then this start is none.
        counted += u32::from(bus.start(&subscription, &delivery.lock).await);
    }
    assert!(counted > 0);
    assert_eq!(bus.one(&subscription).await.deliveries, counted);
    assert_eq!(bus.stats(&subscription).await.deliveries, u64::from(counted));
}

/// A prefetched message is not counted, however often its lock expires.
pub async fn a_prefetched_message_is_not_counted(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", hasty().max_deliveries(2)).await;
    bus.publish(&["a"]).await;
    for _ in 0..4 {
        assert_eq!(bus.one(&subscription).await.deliveries, 0);
    }
    assert!(bus.dead(&subscription).await.is_empty());
}

/// A released message is at once available, and not counted.
pub async fn a_released_message_is_at_once_available_and_not_counted(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let patch = calm().max_deliveries(2).backoff([Duration::from_millis(600_000)]);
    let subscription = bus.subscribe_with("s", patch).await;
    bus.publish(&["a"]).await;
    for _ in 0..6 {
        let delivery = bus.one(&subscription).await;
        assert_eq!(delivery.deliveries, 0);
        assert_eq!(bus.settle(&subscription, &delivery.lock, Settle::Release).await, Settled::Done);
    }
    let stats = bus.stats(&subscription).await;
    assert_eq!((stats.backlog, stats.pending, stats.deliveries), (1, 0, 0));
}

/// A renewed lock holds for another visibility timeout.
pub async fn a_renewed_lock_holds(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().visibility(Duration::from_millis(5_000))).await;
    bus.publish(&["a"]).await;
    let held = bus.one(&subscription).await;
    until("the lock it began with would be over", || async {
        let over = bus.hot.now().await.unwrap() > held.locked_until;
        assert_eq!(bus.hot.renew(&subscription, vec![held.lock.clone()]).await.unwrap(), [true]);
        bus.nothing(&subscription).await;
        bus.hot.wait(&subscription, Duration::from_millis(150)).await.unwrap();
        over
    })
    .await;
    assert_eq!(bus.settle(&subscription, &held.lock, Settle::Ack).await, Settled::Done);
}

/// A renewal says which locks are lost.
pub async fn a_renewal_says_which_locks_are_lost(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c"]).await;
    let held = bus.take(&subscription, 3).await;
    bus.ack(&subscription, &held[1..2]).await;
    let locks = held.iter().map(|delivery| delivery.lock.clone()).collect();
    assert_eq!(bus.hot.renew(&subscription, locks).await.unwrap(), [true, false, true]);
    assert!(bus.hot.renew(&subscription, Vec::new()).await.unwrap().is_empty());
}

/// Settling one message and starting the next is one step.
pub async fn settling_one_and_starting_the_next_is_one_step(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b"]).await;
    let held = bus.take(&subscription, 2).await;
    assert!(bus.start(&subscription, &held[0].lock).await);
    let step = SettleAndStart {
        settle: vec![(held[0].lock.clone(), Settle::Ack)],
        start: vec![held[1].lock.clone()],
    };
    let outcome = bus.hot.settle_and_start(&subscription, step).await.unwrap();
    assert_eq!((outcome.settled, outcome.started), (vec![Settled::Done], vec![true]));
    let stats = bus.stats(&subscription).await;
    assert_eq!((stats.acked, stats.deliveries, stats.pending), (1, 2, 1));
    let nothing = bus.hot.settle_and_start(&subscription, SettleAndStart::default()).await.unwrap();
    assert!(nothing.settled.is_empty() && nothing.started.is_empty());
}

/// A message whose deliveries are used up is not started but becomes a dead letter.
pub async fn a_message_whose_deliveries_are_used_up_is_not_started(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a"]).await;
    bus.handle(&subscription, retry("first")).await;
    let second = bus.one(&subscription).await;
    assert_eq!(second.deliveries, 1);
    bus.subscribe_with("s", SubscriptionPatch::default().max_deliveries(1)).await;
    assert!(!bus.start(&subscription, &second.lock).await);
    bus.nothing(&subscription).await;
    let dead = bus.dead(&subscription).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].deliveries, 1);
    assert!(!dead[0].reason.is_empty());
    bus.at_rest(&subscription).await;
}

/// A deferred message waits to be fetched.
pub async fn a_deferred_message_waits_to_be_fetched(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b"]).await;
    let (deferred, settled) = bus.handle(&subscription, Settle::Defer).await;
    assert_eq!(settled, Settled::Done);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["b"]);
    bus.nothing(&subscription).await;
    assert_eq!(bus.stats(&subscription).await.deferred, 1);
    let fetched = bus.hot.fetch_deferred(&subscription, vec![deferred.lock.id.clone()]).await.unwrap();
    assert_eq!(texts(&fetched), ["a"]);
    assert_ne!(fetched[0].lock.token, deferred.lock.token);
    assert!(
        bus.hot.fetch_deferred(&subscription, vec![deferred.lock.id]).await.unwrap().is_empty(),
        "it is in flight now"
    );
    assert_eq!(bus.stats(&subscription).await.deferred, 0);
    assert!(bus.start(&subscription, &fetched[0].lock).await);
    bus.ack(&subscription, &fetched).await;
    bus.nothing(&subscription).await;
}

/// Only deferred messages can be fetched.
pub async fn only_deferred_messages_can_be_fetched(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (subscription, other) = (bus.subscribe("s").await, bus.subscribe("other").await);
    let ids = bus.publish(&["deferred", "in flight", "acked", "unread"]).await;
    let held = bus.take(&subscription, 3).await;
    bus.settle(&subscription, &held[0].lock, Settle::Defer).await;
    bus.settle(&subscription, &held[2].lock, Settle::Ack).await;
    assert!(
        bus.hot.fetch_deferred(&other, ids.clone()).await.unwrap().is_empty(),
        "another subscription's business"
    );
    let mut asked = ids.clone();
    asked.push("no-such-message".to_owned());
    let fetched = bus.hot.fetch_deferred(&subscription, asked).await.unwrap();
    assert_eq!(texts(&fetched), ["deferred"]);
}

/// A deferred message keeps its count, and a lock that expires after a fetch brings it back.
pub async fn a_deferred_message_keeps_its_count(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a"]).await;
    let (deferred, _) = bus.handle(&subscription, Settle::Defer).await;
    let fetched =
        bus.hot.fetch_deferred(&subscription, vec![deferred.lock.id.clone()]).await.unwrap().remove(0);
    assert_eq!(fetched.deliveries, 1);
    assert!(bus.start(&subscription, &fetched.lock).await);
    assert_eq!(bus.settle(&subscription, &fetched.lock, retry("again")).await, Settled::Done);
    let again = bus.one(&subscription).await;
    assert_eq!((text(&again.message.payload).as_str(), again.deliveries), ("a", 2));
}

/// A lock of one subscription is none of another.
pub async fn a_lock_of_one_subscription_is_none_of_another(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["a"]).await;
    let (ours, theirs) = (bus.one(&one).await, bus.one(&two).await);
    assert_eq!(bus.settle(&two, &ours.lock, Settle::Ack).await, Settled::Lost);
    assert_eq!(bus.settle(&one, &ours.lock, Settle::Ack).await, Settled::Done);
    assert_eq!(bus.settle(&two, &theirs.lock, Settle::Ack).await, Settled::Done);
}
