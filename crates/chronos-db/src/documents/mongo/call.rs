//! Carrying out a call: bounded in time, going on by itself, and again where that changes nothing.
//!
//! A call runs in a task of its own. A future that was begun and is not polled would keep its connection, and
//! the call that its caller makes meanwhile would wait for that connection for ever if there is only one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mongodb::ClientSession;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Connector, Lease, Primary};
use super::failure::Failure;
use crate::Error;
use crate::documents::within;

/// The first pause before a call is made again; each following one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// What is left of a call's time for the answer to travel when the server gets a limit for its own waiting.
const TRAVEL: Duration = Duration::from_millis(500);
/// How long a server that is no longer the primary may take to end what it was asked.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The least time that a server is given to wait for its majority.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// One call: the client, and until when.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) connector: Arc<Connector>,
    pub(super) lease: Arc<Lease>,
    at: Instant,
}

/// Growing pauses until a call's time is over.
pub(super) struct Pauses {
    at: Instant,
    next: Duration,
}

impl Pauses {
    pub(super) fn until(at: Instant) -> Self {
        Self { at, next: FIRST_PAUSE }
    }

    /// Waits before the next attempt; whether there is time for one.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() + self.next >= self.at {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(MAX_PAUSE);
        true
    }
}

impl Call {
    pub(super) fn pauses(&self) -> Pauses {
        Pauses::until(self.at)
    }

    /// Whether something that takes this long would end before the call's time is over.
    pub(super) fn has_time_for(&self, duration: Duration) -> bool {
        Instant::now() + duration < self.at
    }

    /// How long the server may wait for a majority, so that its answer comes before the call's time is over.
    pub(super) fn majority_wait(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now()).saturating_sub(TRAVEL).max(SHORTEST_WAIT)
    }

    /// A session whose reads see the writes acknowledged to this client, also when another member has become
    /// the primary since.
    pub(super) async fn session(&self) -> Result<ClientSession, Failure> {
        let mut session = self.lease.client.start_session().causal_consistency(true).await?;
        if let Some(seen) = self.connector.seen() {
            session.advance_operation_time(seen);
        }
        Ok(session)
    }
}

impl Connector {
    /// Makes a call that may be made again without harm: until it succeeds, fails for good, or its time is
    /// over.
    pub(super) async fn repeat<T, F, W>(self: &Arc<Self>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(Call) -> W + Send + Sync + 'static,
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let at = self.deadline();
        let connector = Arc::clone(self);
        let all = async move {
            let mut pauses = Pauses::until(at);
            loop {
                let call =
                    Call { connector: Arc::clone(&connector), lease: Arc::new(connector.lease().await?), at };
                match connector.while_primary(work(call)).await {
                    Err(failure) if failure.may_pass() && pauses.pause().await => {}
                    settled => return settled,
                }
            }
        };
        self.bounded(at, all).await
    }

    /// Makes a call once.
    pub(super) async fn once<T, F, W>(self: &Arc<Self>, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(Call) -> W + Send + 'static,
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let at = self.deadline();
        let connector = Arc::clone(self);
        let all = async move {
            let lease = Arc::new(connector.lease().await?);
            work(Call { connector, lease, at }).await
        };
        self.bounded(at, all).await
    }

    /// When a call that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + within::at_most(self.limit())
    }

    /// Runs `work` in a task of its own until `at`, or until nobody waits for it any more.
    pub(super) async fn bounded<T: Send + 'static>(
        &self,
        at: Instant,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        match tokio::time::timeout_at(at, AbortOnDropHandle::new(tokio::spawn(work))).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::database("the call was given up: the runtime is shutting down")
                    .retryable()
                    .into()),
            },
            Err(_) => Err(Failure::NoAnswer {
                after: at.saturating_duration_since(begun),
                primary: self.primary().borrow().is_some(),
            }),
        }
    }

    /// Runs `work` as long as the server it began on stays the primary: one that is frozen keeps its
    /// connections, and never answers.
    pub(super) async fn while_primary<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut primary = self.primary();
        let before = primary.borrow_and_update().clone();
        tokio::select! {
            biased;
            settled = work => settled,
            () = lost(&mut primary, before) => Err(Failure::PrimaryLost),
        }
    }
}

/// Returns when the primary is no longer the one it was. With none at the beginning, the first that is found
/// counts.
async fn lost(primary: &mut watch::Receiver<Primary>, mut before: Primary) {
    while primary.changed().await.is_ok() {
        let now = primary.borrow_and_update().clone();
        match &before {
            // What lost it may be the call's own failure, which says more.
            Some(_) if now != before => return tokio::time::sleep(LAST_WORDS).await,
            Some(_) => {}
            None => before = now,
        }
    }
    // The client is gone; the work ends by itself.
    std::future::pending().await
}
