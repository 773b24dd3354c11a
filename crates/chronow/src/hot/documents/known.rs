//! What a process remembers of topics.

use std::collections::HashMap;

use bson::oid::ObjectId;

use crate::TopicName;

/// What a process remembers of topics, to need one read a publish.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) ids: HashMap<TopicName, (String, Vec<String>)>,
    pub(super) aside: HashMap<String, Aside>,
    /// The lowest ack floor of a topic's subscriptions, which only rises, and the list it is of.
    pub(super) ack_floors: HashMap<String, (ObjectId, i64)>,
    pub(super) looked_for_idle: HashMap<String, i64>,
    /// The revision of a topic as it was seen last, none if it was not there; and how often another one was
    /// seen.
    pub(super) seen: HashMap<TopicName, (Option<ObjectId>, u64)>,
}

/// What waited outside of the chunks, when it was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    pub(super) at: i64,
    pub(super) count: i64,
    /// The last sequence number given out, and how many sequence numbers might still have gone aside.
    pub(super) last: i64,
    pub(super) window: i64,
}

impl Aside {
    /// The most that can wait there now, but for what was given back from elsewhere: all else had a sequence
    /// number.
    pub(super) fn most(&self, last: i64) -> i64 {
        self.count + self.window + (last - self.last)
    }
}
