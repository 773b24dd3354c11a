//! Plain values that the files of this folder share.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::SubscriptionName;

/// What those who wait no more left on the shards of each subscription.
pub(super) type Left = Mutex<HashMap<SubscriptionName, HashMap<u16, Vec<String>>>>;

/// What the shards of a topic said about the state of its options, and how often that was something new.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    pub(super) of_shards: HashMap<u16, String>,
    pub(super) changes: u64,
}

/// Who has to confirm, and in which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirm {
    pub(super) replicas: u32,
    pub(super) within: Duration,
}
