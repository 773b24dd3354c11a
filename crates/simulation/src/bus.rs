//! The bus on documents: what publishers and consumers do, and what they are answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronos_db::{Json, json};
use chronow::hot::{
    DeliverPolicy, Delivery, Lock, MessageStore as _, OutboundMessage, Select, Settle, SettleAndStart,
    Settled, SubscriptionPatch, TopicPatch,
};
use chronow::{Result, Scope, SubscriptionName, TopicName};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::world::{World, wait};

/// Names of subscriptions.
const NAMES: [&str; 3] = ["first", "second", "third"];
/// Messages of one key are in order.
const KEYS: u64 = 3;
/// A publish is tried again under its dedup id within this time, which is shorter than the window.
pub(crate) const AGAIN: Duration = Duration::from_secs(300);

/// A message, as its publisher knows it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Its number, which is its payload.
    pub n: i64,
    /// Its ordering key.
    pub key: Option<String>,
    /// The moment at which it was published first.
    pub began: u64,
    /// The moment of the answer.
    pub ended: Option<u64>,
    /// Its id, if it was accepted.
    pub id: Option<String>,
    /// It was tried under one dedup id for longer than that is known.
    pub is_spread: bool,
    /// It comes when its time has come, and not in the order of its key.
    pub is_delayed: bool,
}

/// What a consumer did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// Its handler began.
    Start,
    /// It is done.
    Ack,
    /// It comes again.
    Retry,
    /// It is given up.
    DeadLetter,
    /// It was not handled after all.
    Release,
}

/// One step of a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The message.
    pub n: i64,
    /// Its id.
    pub id: String,
    /// The lock.
    pub token: String,
    /// The number of the subscription.
    pub subscription: usize,
    /// What was asked.
    pub did: Did,
    /// The moment at which it was asked.
    pub began: u64,
    /// The moment of the answer.
    pub ended: Option<u64>,
    /// The answer; none if there was none.
    pub answer: Option<Settled>,
}

/// The work of a run on the bus.
#[derive(Debug)]
pub(crate) struct BusWork {
    world: Arc<World>,
    /// The topic of all.
    pub topic: TopicName,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionName>,
    /// How often a message may be started.
    pub most: u32,
    visibility: Duration,
    /// What was published.
    pub published: Mutex<Vec<Published>>,
    /// What consumers did.
    pub steps: Mutex<Vec<Step>>,
    /// How often dead letters were given back.
    pub redrives: Mutex<u32>,
    moments: Mutex<u64>,
}

impl BusWork {
    /// Draws the work of a run.
    ///
    /// # Errors
    /// None that names do not have.
    pub(crate) fn drawn(world: &Arc<World>) -> Result<Arc<Self>> {
        let chance = &world.chance;
        let topic = TopicName::new(&Scope::new("acme", "sim")?, "orders")?;
        let names = &NAMES[..1 + chance.below(NAMES.len() as u64) as usize];
        let subscriptions = names.iter().map(|name| SubscriptionName::new(&topic, name));
        Ok(Arc::new(Self {
            world: Arc::clone(world),
            subscriptions: subscriptions.collect::<Result<_>>()?,
            topic,
            most: 1 + u32::try_from(chance.below(4)).unwrap_or(0),
            visibility: Duration::from_secs(5 + chance.below(25)),
            published: Mutex::default(),
            steps: Mutex::default(),
            redrives: Mutex::default(),
            moments: Mutex::default(),
        }))
    }

    /// Makes the topic and its subscriptions, as every process does when it starts.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn ensure(&self, machine: &Machine) -> Result<()> {
        machine.hot.ensure_topic(&self.topic, &TopicPatch::default()).await?;
        let patch = SubscriptionPatch::default()
            .start(DeliverPolicy::Earliest)
            .visibility(self.visibility)
            .max_deliveries(self.most)
            .backoff([Duration::from_secs(1), Duration::from_secs(5)]);
        for name in &self.subscriptions {
            machine.hot.ensure_subscription(name, &patch).await?;
        }
        Ok(())
    }

    fn moment(&self) -> u64 {
        self.world.history.step();
        let mut moments = self.moments.lock();
        *moments += 1;
        *moments
    }

    /// Publishes so many times.
    pub(crate) async fn publish(self: Arc<Self>, machine: Machine, times: u64, rest_millis: u64) {
        let (world, number) = (Arc::clone(&self.world), machine.process.number);
        for _ in 0..times {
            wait(Duration::from_millis(world.chance.skewed(rest_millis))).await;
            machine.process.pass().await;
            if world.chance.hits(40) {
                self.pass_by(&machine).await;
                continue;
            }
            let (first, messages) = self.batch();
            let is_known = messages.iter().all(|message| message.dedup_id.is_some());
            world.history.line(format_args!("p{number} publishes {first} and {} more", messages.len() - 1));
            let begun = Instant::now();
            for _ in 0..3 {
                let answer = machine.hot.publish(&self.topic, messages.clone()).await;
                machine.process.pass().await;
                let words = answer.as_ref().map_or_else(ToString::to_string, |_| "accepted".to_owned());
                world.history.line(format_args!("     {first} is {words}"));
                let is_spread = is_known && begun.elapsed() > AGAIN;
                let ids = answer.ok().map(|acks| acks.into_iter().map(|ack| ack.id).collect::<Vec<_>>());
                self.answered(first, messages.len(), ids.as_deref(), is_spread);
                if ids.is_some() || !is_known || is_spread {
                    break;
                }
            }
        }
    }

    /// The next messages.
    fn batch(&self) -> (i64, Vec<OutboundMessage>) {
        let chance = &self.world.chance;
        let (count, dedup, delays) = (1 + chance.skewed(4), chance.hits(400), chance.hits(80));
        let began = self.moment();
        let mut published = self.published.lock();
        let first = published.len() as i64;
        let not_before =
            delays.then(|| self.world.time.now().plus_millis(chance.below(60_000).cast_signed()));
        let messages = (first..first + count.cast_signed()).map(|n| {
            let key = chance.hits(600).then(|| format!("k{}", chance.below(KEYS)));
            published.push(Published {
                n,
                key: key.clone(),
                began,
                ended: None,
                id: None,
                is_spread: false,
                is_delayed: delays,
            });
            OutboundMessage {
                payload: Bytes::from(json!({ "n": n }).to_string()),
                key,
                not_before,
                dedup_id: dedup.then(|| format!("d{n}")),
                ..OutboundMessage::default()
            }
        });
        (first, messages.collect())
    }

    fn answered(&self, first: i64, count: usize, ids: Option<&[String]>, is_spread: bool) {
        let ended = self.moment();
        let mut published = self.published.lock();
        for (at, message) in published.iter_mut().skip(first as usize).take(count).enumerate() {
            message.is_spread |= is_spread;
            message.ended = Some(ended);
            message.id = ids.and_then(|ids| ids.get(at).cloned());
        }
    }

    /// Something beside the topic comes and goes.
    async fn pass_by(&self, machine: &Machine) {
        let Ok(other) = TopicName::new(self.topic.scope(), "passing") else { return };
        let Ok(name) = SubscriptionName::new(&other, "by") else { return };
        let hot = &machine.hot;
        // Whatever comes of it: what is checked is that the topic is not touched by it.
        let _ = hot.ensure_topic(&other, &TopicPatch::default().shards(4)).await;
        let _ = hot.ensure_subscription(&name, &SubscriptionPatch::default()).await;
        let message = OutboundMessage { payload: Bytes::from("{}"), ..OutboundMessage::default() };
        let _ = hot.publish(&other, vec![message]).await;
        let _ = hot.pull(&name, 1).await;
        if self.world.chance.hits(500) {
            let _ = hot.delete_topic(&other).await;
        }
    }

    /// Consumes until the world heals.
    pub(crate) async fn consume(self: Arc<Self>, machine: Machine, rest_millis: u64) {
        let chance = &self.world.chance;
        while !self.world.is_calm() {
            wait(Duration::from_millis(1 + chance.skewed(rest_millis))).await;
            machine.process.pass().await;
            let at = chance.below(self.subscriptions.len() as u64) as usize;
            if chance.hits(15) {
                *self.redrives.lock() += 1;
                let answer = machine.hot.redrive(&self.subscriptions[at], &Select::All).await;
                self.world.history.line(format_args!("p{} redrives: {answer:?}", machine.process.number));
                continue;
            }
            let most = 1 + u32::try_from(chance.below(4)).unwrap_or(0);
            let Ok(pulled) = machine.hot.pull(&self.subscriptions[at], most).await else { continue };
            machine.process.pass().await;
            if pulled.deliveries.is_empty() {
                wait(Duration::from_millis(chance.below(3_000))).await;
            }
            for delivery in pulled.deliveries {
                self.handle(&machine, at, delivery).await;
            }
        }
    }

    async fn handle(&self, machine: &Machine, at: usize, delivery: Delivery) {
        let chance = &self.world.chance;
        if chance.hits(60) {
            self.step(machine, at, &delivery, Did::Release).await;
            return;
        }
        if !self.step(machine, at, &delivery, Did::Start).await {
            return;
        }
        let most = self.visibility.as_millis() as u64;
        if chance.hits(300) {
            wait(Duration::from_millis(chance.below(most))).await;
            machine.process.pass().await;
            let _ = machine.hot.renew(&self.subscriptions[at], vec![delivery.lock.clone()]).await;
        }
        wait(Duration::from_millis(chance.skewed(most + most / 2))).await;
        machine.process.pass().await;
        let did = match chance.below(100) {
            0..62 => Did::Ack,
            62..85 => Did::Retry,
            85..90 => Did::DeadLetter,
            // Its lock ends by itself.
            _ => return,
        };
        self.step(machine, at, &delivery, did).await;
    }

    /// Takes a step; whether it was taken.
    pub(crate) async fn step(&self, machine: &Machine, at: usize, delivery: &Delivery, did: Did) -> bool {
        let n = number(&delivery.message.payload);
        let Lock { id, token } = delivery.lock.clone();
        let began = self.moment();
        let place = {
            let mut steps = self.steps.lock();
            steps.push(Step { n, id, token, subscription: at, did, began, ended: None, answer: None });
            steps.len() - 1
        };
        let settle = match did {
            Did::Start => None,
            Did::Ack => Some(Settle::Ack),
            Did::Retry => Some(Settle::Retry { delay: None, reason: "again".to_owned() }),
            Did::DeadLetter => Some(Settle::DeadLetter { reason: "given up".to_owned() }),
            Did::Release => Some(Settle::Release),
        };
        let asked = match settle {
            Some(settle) => {
                SettleAndStart { settle: vec![(delivery.lock.clone(), settle)], start: Vec::new() }
            }
            None => SettleAndStart { settle: Vec::new(), start: vec![delivery.lock.clone()] },
        };
        let process = machine.process.number;
        self.world.history.line(format_args!("p{process} {did:?} {n} of {at} ({})", delivery.deliveries));
        let answer = machine.hot.settle_and_start(&self.subscriptions[at], asked).await;
        // A process that was killed hears nothing.
        machine.process.pass().await;
        let answer = answer.ok().and_then(|answer| match did {
            Did::Start => {
                answer.started.first().map(|begun| if *begun { Settled::Done } else { Settled::Lost })
            }
            _ => answer.settled.first().copied(),
        });
        self.world.history.line(format_args!("     p{process} {did:?} {n} of {at}: {answer:?}"));
        let ended = self.moment();
        if let Some(step) = self.steps.lock().get_mut(place) {
            (step.ended, step.answer) = (Some(ended), answer);
        }
        answer == Some(Settled::Done)
    }
}

/// The number of a message.
pub(crate) fn number(payload: &[u8]) -> i64 {
    Json::parse(payload).ok().and_then(|document| document["n"].as_i64()).unwrap_or(-1)
}
