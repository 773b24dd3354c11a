//! The settings of a runner, and the commands it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};

use super::message::Message;
use super::outcome::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunnerCommand {
    Work,
    Pause,
    Stop,
}

/// How a handler is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) prefetch: usize,
    pub(super) drain: Duration,
    /// Handlers to start in all.
    pub(super) limit: Option<u64>,
}

pub(super) type Handler<T> = Arc<dyn Fn(Message<T>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Looks at the subscription, between the loop and the owner of the runner.
#[derive(Debug)]
pub(super) struct PollSignal {
    /// A caller wants one now.
    pub(super) wanted: Arc<Notify>,
    /// When the last one began that found nothing due.
    pub(super) in_vain: watch::Sender<Option<Instant>>,
}
