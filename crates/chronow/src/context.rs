//! What everything of one connection stands on: its tiers, its settings, its counters, and the state of its
//! background work. It starts nothing and knows nobody above it: those who work in the background
//! (`topic_tasks.rs`, `audit/`, `archiver.rs`, `payloads/`) and the front doors (`bus/`, `shared.rs`) take
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use chronos_db::Chronos;
use parking_lot::Mutex;

use crate::audit::Audit;
use crate::config::Defaults;
use crate::hot::HotTier;
use crate::metrics::Counters;
use crate::payloads::Payloads;
use crate::tasks::{Tasks, TopicTasks};
use crate::warm::Warm;
use crate::{Error, ErrorKind, Result, Scope, TopicName};

/// One connection.
pub(crate) struct Context {
    pub(crate) hot: Arc<dyn HotTier>,
    pub(crate) defaults: Defaults,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tasks: Tasks,
    pub(crate) scope: Scope,
    pub(crate) warm: Option<Warm>,
    /// Closed with this connection, because it was opened for it.
    pub(crate) own: Option<Chronos>,
    pub(crate) payloads: Option<Payloads>,
    pub(crate) topic_tasks: tokio::sync::Mutex<HashMap<TopicName, TopicTasks>>,
    /// Up to which of its changes what a topic asks for is done.
    pub(crate) noticed: Mutex<HashMap<TopicName, u64>>,
    pub(crate) audit: Arc<Audit>,
    /// Whether attempts are noted.
    pub(crate) captures: bool,
}

impl Context {
    pub(crate) fn warm(&self) -> Option<&Warm> {
        self.warm.as_ref()
    }

    /// The warm tier, which must be there.
    pub(crate) fn warm_tier(&self) -> Result<&Warm> {
        self.warm.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "there is no warm tier: connect with a chronos-db that has a messaging database",
            )
        })
    }

    /// Where payloads lie that are too large for the hot tier.
    pub(crate) fn payloads(&self) -> Option<&Payloads> {
        self.payloads.as_ref()
    }
}
