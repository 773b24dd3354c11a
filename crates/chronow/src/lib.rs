//! Shared memory and topics that keep their promises: on Redis, on MongoDB alone, or embedded.
//!
//! A topic's messages reach every subscription at least once, and start at most as often as it allows: retry with
//! backoff, dead letters, delays, ordering by key, filters. What is at work lies in the hot tier; copies, large
//! payloads and dead letters can be kept in a warm tier, which is a messaging database of chronos-db.
//!
//! # Quick start
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> chronow::Result<()> {
//! use chronow::{Chronow, Config};
//!
//! let config = Config::builder().embedded(":memory:").build()?;
//! let chronow = Chronow::connect(config, None).await?;
//!
//! let orders = chronow.bus().topic("orders")?;
//! orders.ensure().await?;
//! let billing = orders.subscription("billing")?;
//! billing.ensure().max_deliveries(5).await?;
//!
//! orders.publish(&chronos_db::json!({"order": 7})).key("customer-1").await?;
//! for message in billing.receive::<chronos_db::Json>(10).await? {
//!     assert_eq!(message.payload["order"], 7);
//!     message.ack().await?;
//! }
//! # chronow.close().await
//! # }
//! ```
//!
//! # Concepts
//!
//! - A [`Config`] names the hot tier; [`Chronow`] is the connection. [`Bus`] has topics, [`Shared`] values.
//! - A [`Topic`] is published to: what "accepted" means is chosen by [`Ack`].
//! - A [`Subscription`] is read: by a handler ([`Subscription::run`]), as a stream ([`Subscription::consume`]), or in
//!   batches ([`Subscription::receive`]). A message is locked for its consumer, and the lock is renewed.
//! - A delivery counts when its handler starts; after the last one the message is in the subscription's dead letters,
//!   from which it can be given back.
//! - [`Shared`] memory: values with versions, lifetimes and watches, also persisted in the warm tier.
//! - An [`Error`] has a [`kind`](ErrorKind), a stable code, and says whether trying again helps.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `redis` | yes | the hot tier on Redis: single, Sentinel, Cluster |
//! | `testing` | no | `hot_suite!`: what every [`HotTier`](hot::HotTier) must do |
//!
//! # A hot tier of your own
//!
//! [`MessageStore`](hot::MessageStore) and [`KeyValueStore`](hot::KeyValueStore) say what a hot tier must do, in
//! messaging words; [`HotTier`](hot::HotTier) is both, with a clock and an end. The feature `testing` has a
//! conformance suite, one function for each promise, and the macro `hot_suite!` stamps it onto your
//! implementation. [`Chronow::with_hot`] then runs topics, runners and shared memory on it. A store that already is a
//! [`DocumentStore`](chronos_db::documents::DocumentStore) needs no implementation:
//! [`DocumentsHot`](hot::documents::DocumentsHot) is a hot tier over any of them.

mod archiver;
mod audit;
mod bus;
mod client;
mod config;
mod context;
mod error;
mod headers;
pub mod hot;
mod metrics;
mod names;
mod outbox;
mod payloads;
mod shared;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod topic_tasks;
mod warm;

pub use bus::{
    Ack, Bus, Cancelled, Consume, Consumer, DeadLetters, EnsureSubscription, EnsureTopic, Message, Nack,
    Outcome, Publish, PublishBatch, PublishMessage, Purge, Received, Redrive, Replay, Run, Runner,
    Subscription, Topic, TraceContext,
};
pub use chronos_db::config::Warning;
pub use chronos_db::messaging::SharedValue;
pub use chronos_db::{Json, Page, Timestamp};
pub use client::Chronow;
pub use config::{Config, ConfigBuilder, Defaults, Redis, Space};
pub use error::{Error, ErrorKind, Result};
pub use metrics::{METRICS, Metrics};
pub use names::{Scope, SubscriptionName, TopicName};
pub use shared::{Entry, Set, Shared};
