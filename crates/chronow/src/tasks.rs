//! Background work: who asks it to end, and how its end is awaited.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::{Error, ErrorKind, Result};

/// The background tasks of one connection.
#[derive(Debug)]
pub(crate) struct Tasks {
    closing: watch::Sender<bool>,
    alive: Mutex<Option<mpsc::Sender<()>>>,
    gone: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// While a task has one, closing waits for it.
#[derive(Debug)]
pub(crate) struct Guard(#[expect(dead_code, reason = "dropping it is what it is for")] mpsc::Sender<()>);

impl Tasks {
    pub(crate) fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { closing: watch::Sender::new(false), alive: Mutex::new(Some(alive)), gone: gone.into() }
    }

    /// For a task that begins.
    ///
    /// # Errors
    /// `CLOSED` if the connection is closing.
    pub(crate) fn guard(&self) -> Result<Guard> {
        let alive = self.alive.lock().clone();
        alive.map(Guard).ok_or_else(|| Error::new(ErrorKind::Closed, "the connection is closed"))
    }

    /// Becomes true when everything is to end. It also ends (with an error) when the connection is dropped.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Asks all to end, and waits until they have.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        self.alive.lock().take();
        // Nothing is ever sent: this returns when the last sender is gone.
        let ended = self.gone.lock().await.recv().await;
        debug_assert!(ended.is_none());
    }
}

/// Returns when `closing` says so or its connection is gone.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that nobody can say it any more.
    let _gone = closing.wait_for(|closing| *closing).await.is_err();
}

/// A task that goes on until this is dropped, its connection is closed, or it has nothing to do any more.
#[derive(Debug)]
pub(crate) struct Background {
    _alive: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Background {
    /// Begins it.
    ///
    /// # Errors
    /// `CLOSED` if the connection is closing.
    pub(crate) fn start<F>(tasks: &Tasks, work: impl FnOnce(Ending) -> F) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = tasks.guard()?;
        let (alive, dropped) = watch::channel(false);
        let work = work(Ending { closing: tasks.closing(), dropped });
        let task = tokio::spawn(async move {
            work.await;
            drop(guard);
        });
        Ok(Self { _alive: alive, task })
    }

    /// Not if it found nothing to do any more.
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

/// How a [`Background`] task hears of its end.
#[derive(Debug)]
pub(crate) struct Ending {
    closing: watch::Receiver<bool>,
    dropped: watch::Receiver<bool>,
}

impl Ending {
    /// Whether it has come.
    pub(crate) fn is_here(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err() || self.dropped.has_changed().is_err()
    }

    /// Returns when it comes.
    pub(crate) async fn comes(&mut self) {
        tokio::select! {
            () = closed(&mut self.closing) => {}
            () = closed(&mut self.dropped) => {}
        }
    }

    /// Sleeps, but not beyond it.
    pub(crate) async fn pause(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.comes() => {}
        }
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
    /// Somebody looked for what was left about to be published.
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
