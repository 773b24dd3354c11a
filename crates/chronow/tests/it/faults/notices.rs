//! What an audit notices: a check that finds nothing wrong has to be able to.

use std::sync::Arc;
use std::time::Duration;

use super::crew;
use super::ledger::{Event, How, Ledger, Reported, audit};
use crate::tiers::{Tier, World};

async fn audited(events: &[Event], published: std::ops::Range<usize>) {
    let world = World::on(Tier::Embedded).await;
    crew::prepare(&world.chronow, Duration::from_secs(5), 1).await;
    let ledger = Ledger::append(&world.file("ledger"));
    crew::publish(&world.chronow, &ledger, published).await;
    events.iter().for_each(|event| ledger.note(event));
    audit(&world.chronow, &ledger, "noticing").await;
}

/// One message was published.
async fn with_one(n: usize) -> (World, Arc<Ledger>, String) {
    let world = World::on(Tier::Embedded).await;
    crew::prepare(&world.chronow, Duration::from_secs(5), 1).await;
    let ledger = Ledger::append(&world.file("ledger"));
    crew::publish(&world.chronow, &ledger, [n]).await;
    let Some(Event::Acknowledged { id, .. }) = ledger.events().pop() else { unreachable!("it was accepted") };
    (world, ledger, id)
}

fn acked_before() -> Event {
    Event::Settled { s: crew::Role::Tame, n: 1, delivery: 0, how: How::Ack, reported: Reported::Done }
}

#[tokio::test]
async fn nothing_is_noticed_where_all_is_well() {
    audited(&[], 0..30).await;
}

#[tokio::test]
#[should_panic(expected = "it was lost")]
async fn a_message_that_was_accepted_and_is_nowhere() {
    audited(&[Event::Acknowledged { n: 7, id: "gone".to_owned() }], 0..4).await;
}

#[tokio::test]
#[should_panic(expected = "it was accepted twice")]
async fn a_message_with_two_ids() {
    audited(&[Event::Acknowledged { n: 1, id: "another".to_owned() }], 0..4).await;
}

#[tokio::test]
#[should_panic(expected = "it came again after its end")]
async fn a_message_that_comes_again_after_its_end() {
    audited(&[acked_before()], 0..4).await;
}

#[tokio::test]
#[should_panic(expected = "it leaked")]
async fn a_message_at_a_subscription_that_does_not_want_it() {
    let (world, ledger, id) = with_one(1).await;
    ledger.note(&Event::Got { s: crew::Role::Even, n: 1, id, delivery: 1 });
    audit(&world.chronow, &ledger, "noticing").await;
}

#[tokio::test]
#[should_panic(expected = "too many deliveries")]
async fn a_delivery_beyond_the_limit() {
    let (world, ledger, id) = with_one(0).await;
    ledger.note(&Event::Got { s: crew::Role::Wild, n: 0, id, delivery: 5 });
    audit(&world.chronow, &ledger, "noticing").await;
}
