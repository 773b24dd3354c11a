//! Options of topics and subscriptions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::MAX_DELAY;
use super::millis::{self, to_millis};
use crate::{Error, Json, Result, Timestamp};

/// What happens to a publish when the topic holds [`TopicOptions::max_len`] messages that a subscription
/// still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscardPolicy {
    /// It fails with `TOPIC_FULL`.
    #[default]
    Reject,
    /// The oldest messages go, and are counted.
    DropOldest,
}

/// Where a new subscription begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// With what is published from now on.
    #[default]
    New,
    /// With the oldest message still held.
    Earliest,
    /// With the first message published at this time (milliseconds since the epoch) or later.
    Time(i64),
    /// With the message behind this id.
    Id(String),
}

impl DeliverPolicy {
    /// Reads `new`, `earliest`, an ISO-8601 time, or a message id.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for an empty text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" => Err(Error::validation("a start position is `new`, `earliest`, a time or a message id")),
            "new" => Ok(Self::New),
            "earliest" => Ok(Self::Earliest),
            other => Ok(Timestamp::parse(other)
                .map_or_else(|_| Self::Id(other.to_owned()), |at| Self::Time(at.as_millis()))),
        }
    }
}

/// The options of a topic; a [`TopicPatch`](super::TopicPatch) changes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct TopicOptions {
    /// Streams the messages are spread over; fixed at creation. Default 1.
    pub shards: u16,
    /// Most messages held that a subscription still needs. Default 100,000.
    pub max_len: u64,
    /// What happens beyond it.
    pub overflow: DiscardPolicy,
    /// Messages expire after this time, unless they say otherwise. Default: never.
    #[serde(rename = "ttlMs", with = "millis::maybe")]
    pub ttl: Option<Duration>,
    /// For how long a dedup id is remembered. Default 10 minutes.
    #[serde(rename = "dedupWindowMs", with = "millis::one")]
    pub dedup_window: Duration,
    /// Keep a copy of every message in the warm tier. Default: no.
    pub warm: bool,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            max_len: 100_000,
            overflow: DiscardPolicy::Reject,
            ttl: None,
            dedup_window: Duration::from_secs(600),
            warm: false,
        }
    }
}

/// The options of a subscription; a [`SubscriptionPatch`](super::SubscriptionPatch) changes them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// How long a message is locked for its consumer. Default 30 s.
    #[serde(rename = "visibilityMs", with = "millis::one")]
    pub visibility: Duration,
    /// Most handler starts per message. Default 5.
    pub max_deliveries: u32,
    /// Waits before the second, third … delivery; the last one repeats. Default 1, 5, 30 s.
    #[serde(rename = "backoffMs", with = "millis::list")]
    pub backoff: Vec<Duration>,
    /// Up to this share is added to a wait at random, in percent. Default 20.
    pub jitter_percent: u8,
    /// Keep messages whose deliveries are used up as dead letters (default), or drop them.
    pub dead_letters: bool,
    /// Where it began.
    pub start: DeliverPolicy,
    /// Only messages whose `{payload, headers}` match, in chronos-db's filter language.
    pub filter: Option<Json>,
    /// Removed after nobody pulled from it, settled or renewed for this long, and no message is locked. Default:
    /// never.
    #[serde(rename = "autoDeleteMs", with = "millis::maybe")]
    pub auto_delete: Option<Duration>,
    /// Hands out nothing.
    pub paused: bool,
}

chronos_db::debug_some!(SubscriptionOptions {
    visibility,
    max_deliveries,
    backoff,
    jitter_percent,
    dead_letters,
    start,
    auto_delete,
    paused
});

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            visibility: Duration::from_secs(30),
            max_deliveries: 5,
            backoff: [1, 5, 30].map(Duration::from_secs).to_vec(),
            jitter_percent: 20,
            dead_letters: true,
            start: DeliverPolicy::New,
            filter: None,
            auto_delete: None,
            paused: false,
        }
    }
}

impl SubscriptionOptions {
    /// Returns the wait before the next delivery after `deliveries` of them, with `chance` (0 up to 1) of the
    /// jitter.
    #[must_use]
    pub fn wait_after(&self, deliveries: u32, chance: f64) -> Duration {
        let index = (deliveries.max(1) as usize - 1).min(self.backoff.len().saturating_sub(1));
        let base = self.backoff.get(index).copied().unwrap_or_default();
        base.mul_f64(1.0 + chance.clamp(0.0, 1.0) * f64::from(self.jitter_percent) / 100.0)
    }
}

impl TopicOptions {
    /// With times as they are stored.
    pub(super) fn in_whole_millis(mut self) -> Self {
        self.ttl = self.ttl.map(millis::whole);
        self.dedup_window = millis::whole(self.dedup_window);
        self
    }

    /// Checks bounds.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the option.
    pub fn check(&self) -> Result<()> {
        bound("shards", u64::from(self.shards), 1, 1_024)?;
        bound("max_len", self.max_len, 1, u64::MAX)
    }
}

impl SubscriptionOptions {
    /// With times as they are stored.
    pub(super) fn in_whole_millis(mut self) -> Self {
        self.visibility = millis::whole(self.visibility);
        self.backoff = self.backoff.into_iter().map(millis::whole).collect();
        self.auto_delete = self.auto_delete.map(millis::whole);
        self
    }

    /// Checks bounds, and that the filter is one.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the option.
    pub fn check(&self) -> Result<()> {
        bound("visibility (milliseconds)", to_millis(self.visibility), 100, 12 * 3_600_000)?;
        bound("max_deliveries", u64::from(self.max_deliveries), 1, 1_000_000)?;
        bound("backoff (entries)", self.backoff.len() as u64, 1, 100)?;
        let longest = self.backoff.iter().copied().max().unwrap_or_default();
        bound("backoff (milliseconds)", to_millis(longest), 0, to_millis(MAX_DELAY))?;
        bound("jitter_percent", u64::from(self.jitter_percent), 0, 100)?;
        if let Some(filter) = &self.filter {
            chronos_db::documents::filter::parse(filter, &mut |path| Ok(path.to_owned()))?;
        }
        Ok(())
    }
}

fn bound(name: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Error::validation(format!("{name} is {value}; allowed are {least} to {most}")))
    }
}
