//! Background work: how it is stopped, and how its end is awaited.

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{Error, ErrorKind, Result};

/// The background tasks of one connection.
#[derive(Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Cancelled when everything is to end, also because the connection is dropped.
    closing: DropGuard,
}

/// While a task has one, closing waits for it.
pub(crate) type Guard = TaskTrackerToken;

/// A token that closing waits for; none if the tracker is closed.
pub(crate) fn enter(tracker: &TaskTracker) -> Option<Guard> {
    // A closed tracker hands out tokens all the same. So the token is taken before the tracker is asked: it
    // counts tokens and knows whether it is closed in one atomic, so either `close` came later and waits for
    // this token, or it is seen here. Asked first, it could close, wait and return in between.
    let guard = tracker.token();
    (!tracker.is_closed()).then_some(guard)
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), closing: CancellationToken::new().drop_guard() }
    }

    /// For a task that begins.
    ///
    /// # Errors
    /// `CLOSED` if the connection is closing.
    pub(crate) fn guard(&self) -> Result<Guard> {
        enter(&self.tracker).ok_or_else(|| Error::new(ErrorKind::Closed, "the connection is closed"))
    }

    /// Begins a task that closing waits for.
    ///
    /// # Errors
    /// `CLOSED` if the connection is closing.
    pub(crate) fn spawn<F>(&self, task: F) -> Result<JoinHandle<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // Held until the task has a token of its own.
        let _guard = self.guard()?;
        Ok(self.tracker.spawn(task))
    }

    /// Is cancelled when everything is to end, or the connection is dropped.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.token().clone()
    }

    /// Asks all to end, and waits until they have.
    pub(crate) async fn close(&self) {
        self.closing.token().cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A task that goes on until this is dropped, its connection is closed, or it has nothing to do any more.
#[derive(Debug)]
pub(crate) struct Background {
    task: JoinHandle<()>,
    /// Cancels its token.
    _end: DropGuard,
}

impl Background {
    /// Begins it. The token that `work` gets is cancelled when it is to end.
    ///
    /// # Errors
    /// `CLOSED` if the connection is closing.
    pub(crate) fn start<F>(tasks: &Tasks, work: impl FnOnce(CancellationToken) -> F) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ending = tasks.closing().child_token();
        let end = ending.clone().drop_guard();
        Ok(Self { task: tasks.spawn(work(ending))?, _end: end })
    }

    /// Not if it found nothing to do any more.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// Which messages get copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// Those that were published so.
    Marked,
    /// All of the topic.
    All,
}

/// The background work of one topic.
#[derive(Debug, Default)]
pub(crate) struct TopicTasks {
    pub(crate) copies: Option<(Extent, Background)>,
    pub(crate) janitor: Option<Background>,
    /// What was left about to be published has been looked for.
    pub(crate) met: bool,
}

impl TopicTasks {
    pub(crate) fn copies(&self, extent: Extent) -> bool {
        self.copies.as_ref().is_some_and(|(current, archiver)| *current >= extent && archiver.is_running())
    }

    pub(crate) fn cleans_up(&self) -> bool {
        self.janitor.as_ref().is_some_and(Background::is_running)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::{Background, Tasks};
    use crate::ErrorKind;

    #[tokio::test]
    async fn closing_waits_for_every_guard_and_refuses_new_ones() {
        let tasks = Tasks::new();
        let guard = tasks.guard().unwrap();
        let mut closing = Box::pin(tasks.close());
        assert!((&mut closing).now_or_never().is_none());
        assert_eq!(tasks.guard().unwrap_err().kind(), ErrorKind::Closed);
        assert!(tasks.closing().is_cancelled());
        drop(guard);
        closing.await;
        tasks.close().await;
        assert_eq!(tasks.spawn(async {}).unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_has_a_guard_after_closing() {
        for _ in 0..200 {
            let (tasks, held) = (Arc::new(Tasks::new()), Arc::new(AtomicUsize::new(0)));
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    let (tasks, held) = (Arc::clone(&tasks), Arc::clone(&held));
                    tokio::spawn(async move {
                        while let Ok(guard) = tasks.guard() {
                            held.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(guard);
                        }
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            tasks.close().await;
            assert_eq!(held.load(Ordering::SeqCst), 0);
            for taker in takers {
                taker.await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_background_task_ends_with_its_owner_and_with_the_connection() {
        let tasks = Tasks::new();
        let start = || Background::start(&tasks, |ending| async move { ending.cancelled().await }).unwrap();
        let (dropped, kept) = (start(), start());
        drop(dropped);
        tokio::task::yield_now().await;
        assert!(kept.is_running());
        tasks.close().await;
        assert!(!kept.is_running());
        let tasks = Tasks::new();
        let of_a_dropped_connection =
            Background::start(&tasks, |ending| async move { ending.cancelled().await }).unwrap();
        drop(tasks);
        let Background { task, _end } = of_a_dropped_connection;
        task.await.unwrap();
    }
}
