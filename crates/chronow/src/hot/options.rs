//! Options of topics and subscriptions, and changes of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// The options of a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOptions {
    /// Streams the messages are spread over; fixed at creation. Default 1.
    pub shards: u16,
    /// Most messages held that a subscription still needs. Default 100,000.
    pub max_len: u64,
    /// What happens beyond it.
    pub overflow: DiscardPolicy,
    /// Messages expire after so many milliseconds, unless they say otherwise. Default: never.
    pub ttl_ms: Option<u64>,
    /// For so many milliseconds a dedup id is remembered. Default 10 minutes.
    pub dedup_window_ms: u64,
    /// Keep a copy of every message in the warm tier. Default: no.
    pub warm: bool,
}

impl Default for TopicOptions {
    fn default() -> Self {
        Self {
            shards: 1,
            max_len: 100_000,
            overflow: DiscardPolicy::Reject,
            ttl_ms: None,
            dedup_window_ms: 600_000,
            warm: false,
        }
    }
}

/// The options of a subscription.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionOptions {
    /// How long a message is locked for its consumer. Default 30 s.
    pub visibility_ms: u64,
    /// Most handler starts per message. Default 5.
    pub max_deliveries: u32,
    /// Waits before the second, third … delivery; the last one repeats. Default 1, 5, 30 s.
    pub backoff_ms: Vec<u64>,
    /// Up to this share is added to a wait at random, in percent. Default 20.
    pub jitter_percent: u8,
    /// Keep messages whose deliveries are used up as dead letters (default), or drop them.
    pub dead_letters: bool,
    /// Where it began.
    pub start: DeliverPolicy,
    /// Only messages whose `{payload, headers}` match, in chronos-db's filter language.
    pub filter: Option<Json>,
    /// Removed after nobody pulled from it, settled or renewed for so many milliseconds, and no message is
    /// locked. Default: never.
    pub auto_delete_ms: Option<u64>,
    /// Hands out nothing.
    pub paused: bool,
}

chronos_db::debug_some!(SubscriptionOptions {
    visibility_ms,
    max_deliveries,
    backoff_ms,
    jitter_percent,
    dead_letters,
    start,
    auto_delete_ms,
    paused
});

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            visibility_ms: 30_000,
            max_deliveries: 5,
            backoff_ms: vec![1_000, 5_000, 30_000],
            jitter_percent: 20,
            dead_letters: true,
            start: DeliverPolicy::New,
            filter: None,
            auto_delete_ms: None,
            paused: false,
        }
    }
}

impl SubscriptionOptions {
    /// Returns the wait, in milliseconds, before the next delivery after `deliveries` of them, with `chance`
    /// (0 up to 1) of the jitter.
    #[must_use]
    pub fn backoff(&self, deliveries: u32, chance: f64) -> Duration {
        let index = (deliveries.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        let base = Duration::from_millis(self.backoff_ms.get(index).copied().unwrap_or(0));
        base.mul_f64(1.0 + chance.clamp(0.0, 1.0) * f64::from(self.jitter_percent) / 100.0)
    }
}

macro_rules! patch {
    ($(#[$doc:meta])* $patch:ident of $options:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $patch {
            $(
                #[doc = concat!("See [`", stringify!($options), "::", stringify!($field), "`].")]
                pub $field: Option<$type>,
            )*
        }

        impl $patch {
            /// Returns the options after this change.
            #[must_use]
            pub fn apply(&self, options: &$options) -> $options {
                let mut options = options.clone();
                $(
                    if let Some(value) = &self.$field {
                        options.$field = value.clone();
                    }
                )*
                options
            }
        }
    };
}

patch! {
    /// Changes of a topic's options; what is none stays as it is. `shards` matters at creation alone.
    TopicPatch of TopicOptions {
        shards: u16, max_len: u64, overflow: DiscardPolicy, ttl_ms: Option<u64>, dedup_window_ms: u64, warm: bool,
    }
}

patch! {
    /// Changes of a subscription's options; what is none stays as it is. `start` matters at creation alone.
    SubscriptionPatch of SubscriptionOptions {
        visibility_ms: u64, max_deliveries: u32, backoff_ms: Vec<u64>, jitter_percent: u8, dead_letters: bool, start: DeliverPolicy,
        filter: Option<Json>, auto_delete_ms: Option<u64>, paused: bool,
    }
}

impl TopicOptions {
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
    /// Checks bounds, and that the filter is one.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the option.
    pub fn check(&self) -> Result<()> {
        bound("visibility_ms", self.visibility_ms, 100, 12 * 3_600_000)?;
        bound("max_deliveries", u64::from(self.max_deliveries), 1, 1_000_000)?;
        bound("backoff_ms (entries)", self.backoff_ms.len() as u64, 1, 100)?;
        let longest = self.backoff_ms.iter().copied().max().unwrap_or(0);
        bound("backoff_ms", longest, 0, u64::try_from(super::MAX_DELAY.as_millis()).unwrap_or(u64::MAX))?;
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
