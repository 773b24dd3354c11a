//! The loop behind a running handler: pulls, starts, settles, all in one task that owns all of it.
//!
//! At most one pull and one settlement are under way. What handlers return meanwhile is settled together with
//! the next starts, in one step: so the round trips per message fall as load grows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::codec::Decode;
use super::consume::{TIMEOUT, UNDECODABLE};
use super::control::{Handler, PollSignal, RunnerCommand, Settings};
use super::lock_guard::{Cancelled, LockGuard, LockRenewer, Ready};
use super::message::{Message, note};
use super::outcome::{Outcome, panic_text};
use super::polling::{Brought, Polling, Slot, at, finished};
use super::shutdown::Shutdown;
use super::subscription::Subscription;
use crate::hot::{MAX_DELAY, Settle, SettleAndStart, SettleAndStartResult, Settled};
use crate::payloads::CLAIM;
use crate::{Error, ErrorKind, Result};

/// Most messages of one pull, and most settlements of one step.
const BATCH: usize = 1_000;

/// A settlement on its way.
struct Ending {
    guard: Arc<LockGuard>,
    settle: Settle,
    keyed: bool,
    /// It was sent before and nobody knows what became of it.
    unsure: bool,
}

/// A message on its way to its handler.
struct Starting<T> {
    ready: Ready,
    payload: T,
}

/// A handler at work.
struct Working {
    guard: Arc<LockGuard>,
    keyed: bool,
    begun: Instant,
}

/// A message with its payload, or how it ends without.
struct Fetched {
    ready: Ready,
    fetched: Result<(), Settle>,
}

/// A step that has ended.
struct Sent<T> {
    endings: Vec<Ending>,
    starts: Vec<Starting<T>>,
    outcome: Result<SettleAndStartResult>,
}

pub(super) struct Driver<T> {
    subscription: Subscription,
    renewer: Arc<LockRenewer>,
    decode: Decode<T>,
    handler: Handler<T>,
    settings: Settings,
    commands: watch::Receiver<RunnerCommand>,
    poll: PollSignal,
    closing: CancellationToken,
    ready: VecDeque<Ready>,
    /// Messages whose payloads are being fetched.
    fetching: FuturesUnordered<BoxFuture<'static, Fetched>>,
    endings: Vec<Ending>,
    handlers: JoinSet<Outcome>,
    working: HashMap<Id, Working>,
    polling: Polling,
    step: Slot<Sent<T>>,
    /// Messages in the step that is under way.
    starting: usize,
    shutdown: Shutdown,
}

impl<T: Send + 'static> Driver<T> {
    pub(super) fn new(
        subscription: Subscription,
        renewer: Arc<LockRenewer>,
        decode: Decode<T>,
        handler: Handler<T>,
        settings: Settings,
        commands: watch::Receiver<RunnerCommand>,
        poll: PollSignal,
    ) -> Self {
        let closing = subscription.inner.tasks.closing();
        Self {
            subscription,
            renewer,
            decode,
            handler,
            settings,
            commands,
            poll,
            closing,
            ready: VecDeque::new(),
            fetching: FuturesUnordered::new(),
            endings: Vec::new(),
            handlers: JoinSet::new(),
            working: HashMap::new(),
            polling: Polling { look: true, ..Polling::default() },
            step: None,
            starting: 0,
            shutdown: Shutdown::default(),
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        loop {
            if self.settings.limit == Some(0) && !self.shutdown.stopping {
                self.stop();
            }
            self.begin_what_can_begin();
            self.shutdown.note(!self.handlers.is_empty());
            if self.shutdown.stopping && self.is_done() {
                let left = self.step.is_some() || !self.endings.is_empty();
                return self.shutdown.result(left);
            }
            let (stopping, timer) = (self.shutdown.stopping, self.timer());
            tokio::select! {
                biased;
                changed = self.commands.changed(), if !stopping => self.commanded(changed.is_err()),
                () = self.closing.cancelled(), if !stopping => self.stop(),
                Some(done) = self.handlers.join_next_with_id() => {
                    self.handled(done);
                    // What ends at about the same time is settled in one step, not the first alone and all
                    // others in a second one.
                    tokio::task::yield_now().await;
                    while let Some(done) = self.handlers.try_join_next_with_id() {
                        self.handled(done);
                    }
                }
                sent = finished(&mut self.step) => self.step_ended(sent),
                brought = finished(&mut self.polling.pull) => self.pulled(brought),
                Some(fetched) = self.fetching.next(), if !self.fetching.is_empty() => self.fetched(fetched),
                waited = finished(&mut self.polling.wait) => self.waited(waited),
                () = self.poll.wanted.notified() => self.polling.look = true,
                () = at(timer) => self.timed(),
            }
        }
    }

    fn is_done(&self) -> bool {
        if self.shutdown.has_given_up() {
            return true;
        }
        let idle = self.handlers.is_empty()
            && self.polling.pull.is_none()
            && self.step.is_none()
            && self.fetching.is_empty();
        // What can't be settled in time ends with its lock.
        let settled = self.endings.is_empty() || self.shutdown.fatal.is_some() || self.shutdown.aborted;
        idle && settled
    }

    fn holds_something(&self) -> bool {
        !self.ready.is_empty()
            || !self.fetching.is_empty()
            || !self.working.is_empty()
            || !self.endings.is_empty()
            || self.step.is_some()
    }

    fn is_working(&self) -> bool {
        !self.shutdown.stopping && *self.commands.borrow() == RunnerCommand::Work
    }

    fn commanded(&mut self, gone: bool) {
        // Nobody holds the runner any more: it stops.
        if gone || *self.commands.borrow() == RunnerCommand::Stop {
            self.stop();
        }
        self.polling.look = true;
    }

    fn stop(&mut self) {
        self.shutdown.stopping = true;
        self.shutdown.deadline = Some(Instant::now() + self.settings.drain);
        self.polling.wait = None;
    }

    fn fail(&mut self, error: Error) {
        let error = error.during("run").on(&self.subscription.name);
        if matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::Closed | ErrorKind::Validation | ErrorKind::Unsupported
        ) {
            self.stop();
            self.shutdown.fatal.get_or_insert(error);
            return;
        }
        tracing::warn!(subscription = %self.subscription.name, %error, "a runner goes on after a failure of the store");
        self.polling.back_off();
    }

    fn begin_what_can_begin(&mut self) {
        let now = Instant::now();
        if !self.is_working() {
            let unused = self
                .ready
                .drain(..)
                .map(|ready| ending(ready.guard, Settle::Release, ready.delivery.message.key.is_some()));
            self.endings.extend(unused);
        }
        if self.polling.not_before.is_some_and(|not_before| not_before > now) {
            return;
        }
        self.polling.not_before = None;
        if self.step.is_none() && self.shutdown.fatal.is_none() {
            self.begin_step();
        }
        if !self.is_working() || self.polling.pull.is_some() {
            return;
        }
        if self.polling.due.is_some_and(|due| due <= now) {
            (self.polling.due, self.polling.look) = (None, true);
        }
        let waiting = self.ready.len() + self.fetching.len();
        let held = self.handlers.len() + self.starting + waiting;
        let room = (self.settings.concurrency + self.settings.prefetch).saturating_sub(held).min(BATCH);
        // Those at work are counted already.
        let wanted = room.min(self.left().saturating_sub(self.starting + waiting));
        if self.polling.look && wanted > 0 && waiting * 2 <= self.settings.prefetch {
            self.polling.look = false;
            let (hot, name) = (Arc::clone(&self.subscription.inner.hot), self.subscription.name.clone());
            // Those for whom there is a handler are started by the pull itself; what is held by now comes
            // before them.
            let free = self.settings.concurrency.saturating_sub(held).min(wanted);
            let [wanted, free] = [wanted, free].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            self.polling.pull = Some(
                async move {
                    let begun = Instant::now();
                    let pulled =
                        hot.pull_and_start(&name, wanted, free).await.map_err(|error| error.during("pull"));
                    Brought { begun, wanted, pulled }
                }
                .boxed(),
            );
        }
    }

    /// Handlers that may still be started.
    fn left(&self) -> usize {
        self.settings.limit.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Settles what has ended and starts what can start, in one step.
    fn begin_step(&mut self) {
        let mut starts = Vec::new();
        while self.handlers.len() + starts.len() < self.settings.concurrency
            && starts.len() < self.left()
            && let Some(ready) = self.ready.pop_front()
        {
            if ready.guard.is_lost() {
                self.polling.look = true;
                continue;
            }
            starts.extend(self.decoded(ready, |reason| Settle::DeadLetter { reason }));
        }
        let endings: Vec<Ending> = self.endings.drain(..self.endings.len().min(BATCH)).collect();
        if endings.is_empty() && starts.is_empty() {
            return;
        }
        for ending in &endings {
            ending.guard.begin_settling();
        }
        self.starting = starts.len();
        let step = SettleAndStart {
            settle: endings.iter().map(|ending| (ending.guard.lock.clone(), ending.settle.clone())).collect(),
            start: starts.iter().map(|starting| starting.ready.guard.lock.clone()).collect(),
        };
        let (hot, name) = (Arc::clone(&self.subscription.inner.hot), self.subscription.name.clone());
        self.step = Some(
            async move {
                let outcome = hot.settle_and_start(&name, step).await.map_err(|error| error.during("settle"));
                Sent { endings, starts, outcome }
            }
            .boxed(),
        );
    }

    /// A message with its payload; nothing if that cannot be decoded, and then it is settled.
    fn decoded(&mut self, ready: Ready, refuse: impl FnOnce(String) -> Settle) -> Option<Starting<T>> {
        match (self.decode)(&ready.delivery) {
            Ok(payload) => Some(Starting { ready, payload }),
            Err(error) => {
                tracing::warn!(subscription = %self.subscription.name, id = %ready.guard.lock.id, %error, "a message cannot be decoded");
                self.endings.push(ending(
                    ready.guard,
                    refuse(UNDECODABLE.to_owned()),
                    ready.delivery.message.key.is_some(),
                ));
                None
            }
        }
    }

    fn step_ended(&mut self, Sent { endings, starts, outcome }: Sent<T>) {
        self.starting = 0;
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // Settling again is safe: what took place says that the lock is lost. What may have been
                // started is given back.
                self.endings.extend(endings.into_iter().map(|ending| Ending { unsure: true, ..ending }));
                let unused = starts.into_iter().map(|Starting { ready, .. }| Ending {
                    unsure: true,
                    ..ending(ready.guard, Settle::Release, ready.delivery.message.key.is_some())
                });
                self.endings.extend(unused);
                return self.fail(error);
            }
        };
        self.polling.failures = 0;
        let mut attempts = Vec::with_capacity(endings.len());
        for (ending, settled) in endings.iter().zip(outcome.settled) {
            let retried =
                matches!(ending.settle, Settle::Retry { .. } | Settle::Release) && settled == Settled::Done;
            self.polling.look |= ending.keyed || retried;
            if settled == Settled::Lost {
                if ending.unsure {
                    continue;
                }
                tracing::warn!(subscription = %self.subscription.name, id = %ending.guard.lock.id, "a settlement came too late: the lock was lost");
            }
            attempts.push((&*ending.guard, &ending.settle, settled));
        }
        note(&self.subscription.inner, &self.subscription.name, &attempts);
        for (starting, started) in starts.into_iter().zip(outcome.started) {
            if started {
                self.work(starting);
            } else {
                self.polling.look = true;
            }
        }
    }

    fn work(&mut self, starting: Starting<T>) {
        self.settings.limit = self.settings.limit.map(|left| left.saturating_sub(1));
        let Starting { ready: Ready { delivery, guard }, payload } = starting;
        let keyed = delivery.message.key.is_some();
        let message = Message::new(delivery, payload, Arc::clone(&guard));
        self.subscription.inner.counters.begin(message.deliveries() > 1, message.waited());
        let span = tracing::info_span!(
            "handle",
            subscription = %self.subscription.name,
            id = message.id(),
            delivery = message.deliveries(),
            traceparent = message.traceparent()
        );
        // The handler makes its future inside the task, so that its panics are its own.
        let handler = Arc::clone(&self.handler);
        let task = self.handlers.spawn(async move { handler(message).await }.instrument(span));
        self.working.insert(task.id(), Working { guard, keyed, begun: Instant::now() });
    }

    fn handled(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => {
                let id = error.id();
                let reason = match error.try_into_panic() {
                    Ok(panic) => format!("the handler panicked: {}", panic_text(&*panic)),
                    Err(_) => "the consumer was stopped".to_owned(),
                };
                (id, Outcome::Retry { reason, delay: None })
            }
        };
        // Every task was entered when it was spawned.
        let Some(Working { guard, keyed, begun }) = self.working.remove(&id) else { return };
        self.subscription.inner.counters.end(begun.elapsed());
        let settle = match outcome {
            Outcome::Ack => Settle::Ack,
            // The handler has returned: there is nobody to tell that it is too long.
            Outcome::Retry { reason, delay } => {
                Settle::Retry { delay: delay.map(|delay| delay.min(MAX_DELAY)), reason }
            }
            Outcome::DeadLetter { reason } => Settle::DeadLetter { reason },
            Outcome::Defer => Settle::Defer,
            // Nobody renews a lock that nobody holds.
            Outcome::Leave => return,
        };
        self.endings.push(ending(guard, settle, keyed));
    }

    pub(super) fn pulled(&mut self, Brought { begun, wanted, pulled }: Brought) {
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(error) => return self.fail(error),
        };
        self.polling.failures = 0;
        self.subscription.inner.notice(self.subscription.name.topic());
        let all = pulled.deliveries.len() < wanted as usize;
        for (index, delivery) in pulled.deliveries.into_iter().enumerate() {
            let guard = self.renewer.guard(&delivery, begun);
            let ready = Ready { delivery, guard };
            // One with a claim is never started by the pull: its payload comes first.
            if index < pulled.started {
                if let Some(starting) = self.decoded(ready, |reason| Settle::Refuse { reason }) {
                    self.work(starting);
                }
            } else if ready.delivery.message.content_type == CLAIM {
                self.fetching.push(fetch(self.subscription.clone(), ready).boxed());
            } else {
                self.ready.push_back(ready);
            }
        }
        if !all {
            // There may be more.
            self.polling.look = true;
            return;
        }
        if !self.holds_something() && pulled.next_due.is_none_or(|due| !due.is_zero()) {
            self.poll.in_vain.send_replace(Some(begun));
        }
        self.polling.due = pulled.next_due.map(|due| Instant::now() + due.max(Duration::from_millis(1)));
        if self.polling.wait.is_none() && self.is_working() {
            let (hot, name) = (Arc::clone(&self.subscription.inner.hot), self.subscription.name.clone());
            let mut wait =
                async move { hot.wait(&name, TIMEOUT).await.map_err(|error| error.during("wait")) }.boxed();
            // What was published between the pull and the wait is seen by a pull after the wait has begun.
            match (&mut wait).now_or_never() {
                Some(waited) => self.waited(waited),
                None => self.polling.wait = Some(wait),
            }
            self.polling.look = true;
        }
    }

    fn fetched(&mut self, Fetched { ready, fetched }: Fetched) {
        match fetched {
            Ok(()) => self.ready.push_back(ready),
            Err(settle) => {
                self.endings.push(ending(ready.guard, settle, ready.delivery.message.key.is_some()))
            }
        }
    }

    fn waited(&mut self, waited: Result<()>) {
        self.polling.look = true;
        if let Err(error) = waited {
            self.fail(error);
        }
    }

    fn timer(&self) -> Option<Instant> {
        // Only when it can be acted on: a time that has passed would wake this loop at once, again and again,
        // as long as a slow store takes.
        let due = self
            .polling
            .due
            .filter(|_| self.is_working() && self.polling.pull.is_none())
            .map(|due| due.max(self.polling.not_before.unwrap_or(due)));
        [due, self.polling.not_before, self.shutdown.next_deadline()].into_iter().flatten().min()
    }

    fn timed(&mut self) {
        if self.shutdown.next_of_handlers().is_none_or(|deadline| deadline > Instant::now()) {
            return;
        }
        if self.shutdown.cancelled {
            self.shutdown.aborted = true;
            self.handlers.abort_all();
        } else {
            self.shutdown.cancelled = true;
            for working in self.working.values() {
                working.guard.cancel(Cancelled::Stopping);
            }
        }
    }
}

async fn fetch(subscription: Subscription, mut ready: Ready) -> Fetched {
    let fetched = subscription.fetch(&mut ready.delivery).await;
    Fetched { ready, fetched }
}

fn ending(guard: Arc<LockGuard>, settle: Settle, keyed: bool) -> Ending {
    Ending { guard, settle, keyed, unsure: false }
}
