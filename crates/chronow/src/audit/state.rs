//! What waits for the audit.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::warm::Attempt;
use crate::{SubscriptionName, Timestamp};

/// What waits for the audit.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(super) state: Mutex<State>,
    pub(super) wake: Notify,
    /// One works at a time, so that a caller that closes sees the end of what is under way.
    pub(super) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) running: bool,
    pub(super) attempts: VecDeque<(SubscriptionName, Attempt)>,
    pub(super) followed: HashMap<SubscriptionName, Progress>,
}

/// How far the dead letters of a subscription are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// What is older was kept by the process that looked before; none if that is not known yet.
    pub(super) since: Option<Timestamp>,
    /// Up to this cursor all is kept, and nothing comes in before it any more.
    pub(super) settled: Option<String>,
    /// The cursors of those behind it that are kept.
    pub(super) kept: HashSet<String>,
}
