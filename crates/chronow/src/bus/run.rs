//! Running a handler over the messages of a subscription.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::codec::{self, Decode};
use super::control::{Handler, PollSignal};
use super::control::{RunnerCommand, Settings};
use super::driver::Driver;
use super::message::Message;
use super::outcome::Outcome;
use super::subscription::Subscription;
use crate::{Error, ErrorKind, Result};

/// Handlers at work at once, unless something else is said.
const CONCURRENCY: usize = 8;

/// How long handlers may take to end, unless something else is said.
const DRAIN: Duration = Duration::from_secs(30);

impl Subscription {
    /// Runs a handler over messages whose payloads are JSON.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// use chronow::{Message, Outcome};
    ///
    /// let billing = orders.subscription("billing")?;
    /// billing.ensure().await?;
    /// orders.publish(&7).await?;
    /// orders.publish(&-1).await?;
    /// let runner = billing
    ///     .run(|order: Message<i64>| async move {
    ///         if order.payload < 0 {
    ///             return Outcome::DeadLetter { reason: "no such order".to_owned() };
    ///         }
    ///         Outcome::Ack
    ///     })
    ///     .concurrency(4)
    ///     .start()
    ///     .await?;
    /// while billing.stats().await?.deliveries < 2 {
    ///     tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    /// }
    /// runner.stop().await?; // handlers at work end first
    /// assert_eq!(billing.dead_letters().await?.items[0].reason, "no such order");
    /// assert_eq!(billing.redrive().await?, 1);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// What cannot be decoded goes to the dead letters as `undecodable`.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription, or when it is deleted; `HOT_TIER_ERROR` if the store
    /// fails while it starts or ends. Failures in between are logged and tried again.
    pub fn run<T, H, F, O>(&self, handler: H) -> Run<T>
    where
        T: DeserializeOwned + Send + 'static,
        H: Fn(Message<T>) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + 'static,
    {
        Run::new(self.clone(), codec::json(), handler)
    }

    /// Runs a handler over messages as bytes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_bytes<H, F, O>(&self, handler: H) -> Run<Bytes>
    where
        H: Fn(Message<Bytes>) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + 'static,
    {
        Run::new(self.clone(), codec::bytes(), handler)
    }
}

/// Runs a handler; see [`Subscription::run`]. Awaiting it runs until the connection is closed.
#[must_use = "nothing runs until it is started or awaited"]
pub struct Run<T> {
    subscription: Subscription,
    decode: Decode<T>,
    handler: Handler<T>,
    settings: Settings,
    prefetch: Option<usize>,
}

impl<T> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("subscription", &self.subscription.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Run<T> {
    pub(super) fn new<H, F, O>(subscription: Subscription, decode: Decode<T>, handler: H) -> Self
    where
        H: Fn(Message<T>) -> F + Send + Sync + 'static,
        F: Future<Output = O> + Send + 'static,
        O: Into<Outcome> + 'static,
    {
        let handler: Handler<T> = Arc::new(move |message| handler(message).map(Into::into).boxed());
        let settings =
            Settings { concurrency: CONCURRENCY, prefetch: CONCURRENCY, drain: DRAIN, limit: None };
        Self { subscription, decode, handler, settings, prefetch: None }
    }

    /// Limits how many handlers are at work at once (default 8).
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.concurrency = handlers.clamp(1, 100_000);
        self
    }

    /// Holds at most this many messages in advance (default: as many as handlers). Their locks are renewed, and
    /// they don't count as delivered.
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = Some(messages.min(100_000));
        self
    }

    /// Bounds how long handlers may take to end when the runner is stopped (default 30 s). Then they are
    /// cancelled, and their messages tried again. A store that does not answer is waited for 10 s after the
    /// last handler has ended.
    pub fn drain(mut self, most: Duration) -> Self {
        self.settings.drain = most;
        self
    }

    /// Ends after this many handlers were started (default: never).
    pub fn limit(mut self, handlers: u64) -> Self {
        self.settings.limit = Some(handlers);
        self
    }

    /// Begins in the background.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription.
    pub async fn start(self) -> Result<Runner> {
        let Self { subscription, decode, handler, mut settings, prefetch } = self;
        settings.prefetch = prefetch.unwrap_or(settings.concurrency);
        let renewer = subscription.renewer("run").await?;
        let inner = Arc::clone(&subscription.inner);
        let (command, commands) = watch::channel(RunnerCommand::Work);
        let (in_vain, looked_in_vain) = watch::channel(None);
        let look = Arc::new(Notify::new());
        let poll = PollSignal { wanted: Arc::clone(&look), in_vain };
        let driver = Driver::new(subscription, renewer, decode, handler, settings, commands, poll);
        let task = inner.tasks.spawn(driver.run())?;
        Ok(Runner { command, look, looked_in_vain, task: Some(task) })
    }
}

impl<T: Send + 'static> IntoFuture for Run<T> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { self.start().await?.join().await }.boxed()
    }
}

/// A handler that runs in the background. Dropping it stops it without waiting: handlers at work end, and are
/// settled.
#[derive(Debug)]
#[must_use = "dropping a runner stops it"]
pub struct Runner {
    command: watch::Sender<RunnerCommand>,
    look: Arc<Notify>,
    /// When the last look began that found nothing due.
    looked_in_vain: watch::Receiver<Option<Instant>>,
    task: Option<JoinHandle<Result<()>>>,
}

impl Runner {
    /// Starts nothing more and gives back what was prefetched, until it is resumed. Handlers at work go on; a
    /// message that the store is handing out to a free handler at this moment is still handled.
    pub fn pause(&self) {
        self.change(RunnerCommand::Pause);
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.change(RunnerCommand::Work);
    }

    fn change(&self, command: RunnerCommand) {
        self.command.send_if_modified(|now| {
            let changes = *now != RunnerCommand::Stop && *now != command;
            if changes {
                *now = command;
            }
            changes
        });
    }

    /// Gives back what was prefetched, waits for the handlers at work, and settles them.
    ///
    /// # Errors
    /// What ended it before, such as `NOT_FOUND` because the subscription was deleted; or `HOT_TIER_ERROR` if
    /// something could not be settled in time, and comes again when its lock ends.
    pub async fn stop(self) -> Result<()> {
        self.command.send_replace(RunnerCommand::Stop);
        self.join().await
    }

    /// Returns whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns when it has ended; [`join`](Self::join) says how. For waiting for something else at the same
    /// time.
    pub async fn finished(&self) {
        self.command.closed().await;
    }

    /// Looks at once, and returns when nothing was due and nothing held; or when it has ended. It waits while
    /// the store does not answer (then nobody knows what is due), and while the runner is paused.
    pub async fn found_nothing(&self) {
        let asked = Instant::now();
        self.look.notify_one();
        // An error means that it has ended.
        let _ = self.looked_in_vain.clone().wait_for(|begun| begun.is_some_and(|begun| begun >= asked)).await;
    }

    /// Returns when it ends: after [`stop`](Self::stop), when the connection is closed, or when the
    /// subscription is gone.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn join(mut self) -> Result<()> {
        match self.task.take() {
            None => Ok(()),
            Some(task) => match task.await {
                Ok(ended) => ended,
                Err(error) => Err(Error::new(ErrorKind::HotTier, "a runner was broken off").caused_by(error)),
            },
        }
    }
}
