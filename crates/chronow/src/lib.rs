//! Shared memory and topics that keep their promises: on Redis, on MongoDB alone, or embedded.

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
pub use chronos_db::messaging::SharedValue;
pub use chronos_db::{Json, Timestamp};
pub use client::Chronow;
pub use config::{Config, Defaults, Redis, Space};
pub use error::{Error, ErrorKind, Result};
pub use metrics::Metrics;
pub use names::{Scope, SubscriptionName, TopicName};
pub use shared::{Entry, Set, Shared};

/// What the README shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
