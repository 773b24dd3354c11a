//! Changes of the options of topics and subscriptions.

use std::time::Duration;

use super::{DeliverPolicy, DiscardPolicy, SubscriptionOptions, TopicOptions};
use crate::Json;

macro_rules! patch {
    ($(#[$doc:meta])* $patch:ident of $options:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        #[non_exhaustive]
        pub struct $patch {
            $(
                #[doc = concat!("See [`", stringify!($options), "::", stringify!($field), "`].")]
                pub $field: Option<$type>,
            )*
        }

        impl $patch {
            /// The options after this change, with times in whole milliseconds.
            #[must_use]
            pub fn apply(&self, options: &$options) -> $options {
                let mut options = options.clone();
                $(
                    if let Some(value) = &self.$field {
                        options.$field = value.clone();
                    }
                )*
                options.in_whole_millis()
            }
        }
    };
}

patch! {
    /// Changes of a topic's options; what is none stays as it is. `shards` matters at creation alone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronow::hot::{TopicOptions, TopicPatch};
    ///
    /// let patch = TopicPatch::default().max_len(500).ttl(Some(Duration::from_secs(3_600)));
    /// let options = patch.apply(&TopicOptions::default());
    /// assert_eq!((options.max_len, options.shards), (500, 1));
    /// ```
    TopicPatch of TopicOptions {
        shards: u16, max_len: u64, overflow: DiscardPolicy, ttl: Option<Duration>, dedup_window: Duration, warm: bool,
    }
}

impl TopicPatch {
    /// Streams the messages are spread over, from 1 to 1,024.
    #[must_use]
    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Most messages held that a subscription still needs, at least 1.
    #[must_use]
    pub fn max_len(mut self, messages: u64) -> Self {
        self.max_len = Some(messages);
        self
    }

    /// What happens to a publish beyond the length.
    #[must_use]
    pub fn overflow(mut self, overflow: DiscardPolicy) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// How long messages live that don't say it themselves; none is for ever.
    #[must_use]
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// For how long a dedup id is remembered.
    #[must_use]
    pub fn dedup_window(mut self, window: Duration) -> Self {
        self.dedup_window = Some(window);
        self
    }

    /// Whether to keep a copy of every message in the warm tier.
    #[must_use]
    pub fn warm(mut self, warm: bool) -> Self {
        self.warm = Some(warm);
        self
    }
}

patch! {
    /// Changes of a subscription's options; what is none stays as it is. `start` matters at creation alone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronow::hot::{SubscriptionOptions, SubscriptionPatch};
    ///
    /// let patch = SubscriptionPatch::default().max_deliveries(9).backoff([Duration::from_secs(1)]);
    /// let options = patch.apply(&SubscriptionOptions::default());
    /// assert_eq!((options.max_deliveries, options.visibility), (9, Duration::from_secs(30)));
    /// ```
    SubscriptionPatch of SubscriptionOptions {
        visibility: Duration, max_deliveries: u32, backoff: Vec<Duration>, jitter_percent: u8, dead_letters: bool,
        start: DeliverPolicy, filter: Option<Json>, auto_delete: Option<Duration>, paused: bool,
    }
}

impl SubscriptionPatch {
    /// How long a message is locked for its consumer, from 100 ms to 12 hours.
    #[must_use]
    pub fn visibility(mut self, timeout: Duration) -> Self {
        self.visibility = Some(timeout);
        self
    }

    /// Most handler starts per message, from 1 to 1,000,000.
    #[must_use]
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// Waits before the second, third … delivery, from 1 to 100 of at most [`MAX_DELAY`](super::MAX_DELAY) each;
    /// the last one repeats.
    #[must_use]
    pub fn backoff(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.backoff = Some(waits.into_iter().collect());
        self
    }

    /// Up to this share is added to a wait at random, up to 100.
    #[must_use]
    pub fn jitter_percent(mut self, percent: u8) -> Self {
        self.jitter_percent = Some(percent);
        self
    }

    /// Whether messages whose deliveries are used up are kept as dead letters, or dropped.
    #[must_use]
    pub fn dead_letters(mut self, keep: bool) -> Self {
        self.dead_letters = Some(keep);
        self
    }

    /// Where it begins.
    #[must_use]
    pub fn start(mut self, start: DeliverPolicy) -> Self {
        self.start = Some(start);
        self
    }

    /// Only messages whose `{payload, headers}` match, in chronos-db's filter language; none is all.
    #[must_use]
    pub fn filter(mut self, filter: Option<Json>) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Removed after this long without use; none is never.
    #[must_use]
    pub fn auto_delete(mut self, after: Option<Duration>) -> Self {
        self.auto_delete = Some(after);
        self
    }

    /// Hands out nothing while this is set.
    #[must_use]
    pub fn paused(mut self, paused: bool) -> Self {
        self.paused = Some(paused);
        self
    }
}
