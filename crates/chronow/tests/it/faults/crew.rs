//! Publishers and consumers that do the same with a message whenever they see it, and write down the answers
//! they get.

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::{Chronow, ErrorKind, Message, Outcome, Received};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ledger::{Event, How, Ledger, Reported, nothing_happened};
use crate::tiers::{TIMEOUT, number};

pub(super) const TOPIC: &str = "audited";
/// Numbers of one publisher.
pub(super) const PUBLISHER: usize = 10_000;

/// The subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Role {
    /// Everything succeeds.
    Tame,
    /// Some fail once, some always, some are useless.
    Wild,
    /// Only even numbers, by a filter.
    Even,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::Tame, Self::Wild, Self::Even];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tame => "tame",
            Self::Wild => "wild",
            Self::Even => "even",
        }
    }

    pub(super) fn limit(self) -> u32 {
        if self == Self::Wild { 4 } else { 100 }
    }

    pub(super) fn wants(self, n: usize) -> bool {
        self != Self::Even || n.is_multiple_of(2)
    }
}

/// What a subscription does with a delivery of a message.
pub(super) fn ending_of(role: Role, n: usize, delivery: u32) -> How {
    match role {
        Role::Wild if n % 7 == 3 => How::Retry,
        Role::Wild if n % 11 == 5 => How::DeadLetter,
        Role::Wild if n % 5 == 1 && delivery == 1 => How::Retry,
        _ => How::Ack,
    }
}

/// Two keys, for a half of the messages.
pub(super) fn key_of(n: usize) -> Option<&'static str> {
    [Some("a"), None, Some("b"), None][n % 4]
}

pub(super) fn payload_number(payload: &[u8]) -> usize {
    let json: Value = Value::parse(payload).unwrap();
    usize::try_from(json["n"].as_u64().unwrap()).unwrap()
}

/// Makes the topic and its subscriptions.
pub(super) async fn prepare(chronow: &Chronow, visibility: Duration, shards: u16) {
    let topic = chronow.bus().topic(TOPIC).unwrap();
    topic.ensure().shards(shards).await.unwrap();
    for role in Role::ALL {
        let subscription = topic.subscription(role.name()).unwrap();
        let ensure = subscription.ensure().visibility(visibility).max_deliveries(role.limit());
        let ensure = ensure.backoff([Duration::ZERO, Duration::from_millis(30)]);
        match role {
            Role::Even => ensure.filter(json!({ "headers.parity": "0" })).await.unwrap(),
            _ => ensure.await.unwrap(),
        };
    }
}

/// Publishes numbers, one after the other. Of those with a dedup id it is made sure that they were accepted;
/// of the others perhaps nobody knows.
pub(super) async fn publish(chronow: &Chronow, ledger: &Ledger, numbers: impl IntoIterator<Item = usize>) {
    let topic = chronow.bus().topic(TOPIC).unwrap();
    for n in numbers {
        ledger.note(&Event::Sending { n });
        let dedup = n % 8 < 4;
        let begun = std::time::Instant::now();
        loop {
            let mut publish = topic.publish(&json!({ "n": n })).header("parity", (n % 2).to_string());
            if let Some(key) = key_of(n) {
                publish = publish.key(key);
            }
            if dedup {
                publish = publish.dedup_id(format!("d{n}"));
            }
            match publish.await {
                Ok(published) => {
                    assert!(dedup || !published.duplicate);
                    ledger.note(&Event::Acknowledged { n, id: published.id });
                    break;
                }
                Err(error) => {
                    assert!(
                        error.is_retryable() && !nothing_happened(error.kind()),
                        "publishing failed for good: {error}"
                    );
                    ledger.note(&Event::Unsure { n });
                    if !dedup {
                        break;
                    }
                    assert!(begun.elapsed() < TIMEOUT, "publishing goes on failing: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// How long a consumer works on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Hardly at all.
    Quick,
    /// Until it is killed, so that locks have to be renewed.
    Endless,
}

impl Pace {
    async fn work(self) {
        match self {
            Self::Quick => tokio::task::yield_now().await,
            Self::Endless => std::future::pending().await,
        }
    }
}

/// Consumers of all subscriptions: a stream and a runner each.
pub(super) struct Crew {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Crew {
    pub(super) fn consume(chronow: &Chronow, ledger: &Arc<Ledger>) -> Self {
        Self::consume_at(Pace::Quick, chronow, ledger)
    }

    pub(super) fn consume_at(pace: Pace, chronow: &Chronow, ledger: &Arc<Ledger>) -> Self {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for role in Role::ALL {
            tasks.spawn(stream(chronow.clone(), Arc::clone(ledger), role, pace, stop.subscribe()));
            tasks.spawn(run(chronow.clone(), Arc::clone(ledger), role, pace, stop.subscribe()));
        }
        Self { stop, tasks }
    }

    /// Lets what is in hand end.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        // A panic of a consumer is one of the test.
        self.tasks.join_all().await;
    }
}

/// Tries until it works, or until nobody wants it any more.
async fn persist<T, F: Future<Output = chronow::Result<T>>>(
    stop: &watch::Receiver<bool>,
    mut make: impl FnMut() -> F,
) -> Option<T> {
    let begun = std::time::Instant::now();
    loop {
        match make().await {
            Ok(made) => return Some(made),
            Err(_) if *stop.borrow() => return None,
            Err(error) => assert!(
                error.is_retryable() && begun.elapsed() < TIMEOUT,
                "consuming failed for good: {error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stream(
    chronow: Chronow,
    ledger: Arc<Ledger>,
    role: Role,
    pace: Pace,
    mut stop: watch::Receiver<bool>,
) {
    let subscription = chronow.bus().topic(TOPIC).unwrap().subscription(role.name()).unwrap();
    let Some(mut messages) =
        persist(&stop.clone(), || subscription.consume::<Value>().prefetch(5).into_future()).await
    else {
        return;
    };
    loop {
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = messages.next() => next,
        };
        match next.expect("a stream goes on after errors") {
            Ok(received) => handle(&ledger, role, pace, received).await,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    // What cannot be given back comes again when its lock ends.
    drop(messages.close().await);
}

async fn handle(ledger: &Ledger, role: Role, pace: Pace, received: Received<Value>) {
    let (n, delivery) = (number(&received), received.deliveries());
    ledger.note(&Event::Got { s: role, n, id: received.id().to_owned(), delivery });
    pace.work().await;
    let how = ending_of(role, n, delivery);
    ledger.note(&Event::Settling { s: role, n, delivery, how });
    let reported = match how {
        How::Ack => received.ack().await,
        How::Retry => received.nack().reason("poison").await,
        How::DeadLetter => received.dead_letter("useless").await,
    };
    let reported = match reported {
        Ok(()) => Reported::Done,
        Err(error) if error.kind() == ErrorKind::LockLost => Reported::Lost,
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            Reported::Unknown
        }
    };
    ledger.note(&Event::Settled { s: role, n, delivery, how, reported });
}

async fn run(chronow: Chronow, ledger: Arc<Ledger>, role: Role, pace: Pace, mut stop: watch::Receiver<bool>) {
    let subscription = chronow.bus().topic(TOPIC).unwrap().subscription(role.name()).unwrap();
    let handler = move |message: Message<Value>| {
        let ledger = Arc::clone(&ledger);
        async move {
            let (n, delivery) = (number(&message), message.deliveries());
            ledger.note(&Event::Got { s: role, n, id: message.id().to_owned(), delivery });
            pace.work().await;
            let how = ending_of(role, n, delivery);
            ledger.note(&Event::Settling { s: role, n, delivery, how });
            match how {
                How::Ack => Outcome::Ack,
                How::Retry => Outcome::Retry { reason: "poison".to_owned(), delay: None },
                How::DeadLetter => Outcome::DeadLetter { reason: "useless".to_owned() },
            }
        }
    };
    let start =
        || subscription.run(handler.clone()).concurrency(3).prefetch(3).drain(Duration::from_secs(2)).start();
    let Some(runner) = persist(&stop.clone(), start).await else { return };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = runner.finished() => {}
    }
    if let Err(error) = runner.stop().await {
        assert!(error.is_retryable(), "a runner ended for good: {error}");
    }
}
