//! What is counted of topics and subscriptions.

use std::time::Duration;

/// Counts of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// The subscription.
    pub subscription: String,
    /// Not handed out yet and due; without pending and scheduled ones.
    pub backlog: u64,
    /// Handed out, not settled.
    pub pending: u64,
    /// Waiting for their time.
    pub scheduled: u64,
    /// Set aside.
    pub deferred: u64,
    /// In the dead letters.
    pub dead_letters: u64,
    /// Handler starts ever.
    pub deliveries: u64,
    /// Acknowledged ever.
    pub acked: u64,
    /// The age of the oldest message that is not settled.
    pub oldest_age: Option<Duration>,
    /// It hands out nothing until it is resumed.
    pub paused: bool,
}

/// Counts of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Messages held, for any subscription.
    pub length: u64,
    /// Messages dropped by [`DiscardPolicy::DropOldest`](super::DiscardPolicy::DropOldest) ever.
    pub dropped: u64,
    /// Its subscriptions, by name, without the library's own.
    pub subscriptions: Vec<SubscriptionStats>,
    /// The library's own, by name: what waits there counts for the length, too. `__warm` is owed warm copies,
    /// `__claims` keeps payloads in object storage.
    pub internal: Vec<SubscriptionStats>,
}
