//! One connection of its own for all channels that have listeners: it never holds up commands, and comes back
//! by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use redis::aio::PubSub;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::connection::SharedConnection;
use super::errors::failed;
use crate::{Error, ErrorKind, Result};

/// What a listener hears.
#[derive(Clone)]
pub(super) enum Heard {
    Message(bytes::Bytes),
    /// The connection broke; messages may have been missed until it was back.
    Interrupted(String),
}

/// Without the message.
impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(_) => f.write_str("Message(..)"),
            Self::Interrupted(channel) => write!(f, "Interrupted({channel})"),
        }
    }
}

struct Subscribe {
    channel: String,
    granted: oneshot::Sender<Result<broadcast::Receiver<Heard>>>,
}

/// Those who wait for one subscription, each with a number.
type Waiters = VecDeque<(u64, oneshot::Sender<()>)>;

/// Those of this process who wait for messages, by what they wait for; the one that waits longest is woken
/// first.
#[derive(Debug, Default)]
struct Waiting {
    by_subscription: Mutex<HashMap<String, Waiters>>,
    turns: AtomicU64,
}

impl Waiting {
    /// Wakes one of those that wait for what a script names: the stream of a shard and a subscription, in two
    /// lines.
    fn wake(&self, named: &[u8]) {
        let named = String::from_utf8_lossy(named);
        let Some((stream, name)) = named.rsplit_once('\n') else { return };
        // All shards are one topic.
        let first = stream
            .strip_suffix('}')
            .and_then(|inner| inner.rsplit_once('#'))
            .filter(|(_, shard)| !shard.is_empty() && shard.bytes().all(|digit| digit.is_ascii_digit()))
            .map_or_else(|| stream.to_owned(), |(first, _)| format!("{first}}}"));
        let mut waiting = self.by_subscription.lock();
        if let Some(waiters) = waiting.get_mut(&what(&first, name)) {
            // One that has gone meanwhile hears nothing.
            while waiters.pop_front().is_some_and(|(_, waiter)| waiter.send(()).is_err()) {}
        }
    }
}

fn what(stream: &str, name: &str) -> String {
    format!("{stream}\n{name}")
}

/// A consumer that waits for a subscription's messages, until it is dropped.
pub(super) struct Waiter {
    waiting: Arc<Waiting>,
    what: String,
    number: u64,
    woken: oneshot::Receiver<()>,
}

impl Waiter {
    /// Returns when it is woken; once.
    pub(super) async fn woken(&mut self) {
        if (&mut self.woken).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiting.by_subscription.lock();
        if let Some(waiters) = waiting.get_mut(&self.what) {
            waiters.retain(|(number, _)| *number != self.number);
            if waiters.is_empty() {
                waiting.remove(&self.what);
            }
        }
    }
}

/// Listens as long as it lives.
#[derive(Debug)]
pub(super) struct Listener {
    waiting: Arc<Waiting>,
    requests: mpsc::UnboundedSender<Subscribe>,
    task: AbortOnDropHandle<()>,
}

const BUFFER: usize = 1_024;
const CHECK: Duration = Duration::from_secs(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Listener {
    /// Connects when a first listener comes.
    /// On the channel `wakes` it hears who is to be woken.
    pub(super) fn start(connection: SharedConnection, wakes: String) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let waiting = Arc::<Waiting>::default();
        let task = tokio::spawn(
            Task { connection, received, channels: HashMap::new(), wakes, waiting: Arc::clone(&waiting) }
                .run(),
        );
        Self { waiting, requests, task: AbortOnDropHandle::new(task) }
    }

    /// Waits for messages of a subscription of the topic whose first shard has this stream.
    pub(super) fn wait(&self, stream: String, name: &str) -> Waiter {
        let (sender, woken) = oneshot::channel();
        let (what, number) = (what(&stream, name), self.waiting.turns.fetch_add(1, Ordering::Relaxed));
        let mut waiting = self.waiting.by_subscription.lock();
        waiting.entry(what.clone()).or_default().push_back((number, sender));
        drop(waiting);
        Waiter { waiting: Arc::clone(&self.waiting), what, number, woken }
    }

    /// Everything sent to `channel` after this returned is heard, or an interruption.
    pub(super) async fn listen(&self, channel: String) -> Result<broadcast::Receiver<Heard>> {
        let over = || Error::new(ErrorKind::Closed, "the connection to Redis was closed");
        let (granted, answer) = oneshot::channel();
        self.requests.send(Subscribe { channel, granted }).map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }

    pub(super) fn stop(&self) {
        self.task.abort();
    }
}

struct Task {
    connection: SharedConnection,
    received: mpsc::UnboundedReceiver<Subscribe>,
    channels: HashMap<String, broadcast::Sender<Heard>>,
    wakes: String,
    waiting: Arc<Waiting>,
}

impl Task {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(50);
        while let Some(subscribe) = self.received.recv().await {
            let mut first = Some(subscribe);
            loop {
                let demotions = self.connection.demotions();
                match self.connect().await {
                    Ok(pubsub) => {
                        pause = Duration::from_millis(50);
                        let reason = self.serve(pubsub, demotions, first.take()).await;
                        let Some(reason) = reason else { return };
                        tracing::warn!(%reason, "the connection that listens to Redis broke");
                        self.tell_all(&reason);
                    }
                    Err(error) => {
                        if let Some(subscribe) = first.take() {
                            // The asker may have gone.
                            drop(subscribe.granted.send(Err(error)));
                        } else {
                            tracing::warn!(%error, "listening to Redis failed");
                        }
                    }
                }
                self.channels.retain(|_, sender| sender.receiver_count() > 0);
                if self.channels.is_empty() {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                while let Ok(subscribe) = self.received.try_recv() {
                    let error =
                        Error::new(ErrorKind::HotTier, "the connection that listens to Redis is down")
                            .retryable();
                    drop(subscribe.granted.send(Err(error)));
                }
            }
        }
    }

    async fn connect(&self) -> Result<PubSub> {
        let limit = self.connection.response_timeout();
        let late = || Error::new(ErrorKind::HotTier, "Redis did not answer in time").retryable();
        let mut pubsub =
            tokio::time::timeout(limit, self.connection.pubsub()).await.map_err(|_| late())??;
        for channel in self.channels.keys() {
            tokio::time::timeout(limit, pubsub.subscribe(channel))
                .await
                .map_err(|_| late())?
                .map_err(failed)?;
        }
        Ok(pubsub)
    }

    /// Until the connection breaks (with the reason), or nobody is left who could ask for something.
    async fn serve(
        &mut self,
        pubsub: PubSub,
        mut demotions: watch::Receiver<u64>,
        first: Option<Subscribe>,
    ) -> Option<String> {
        // A listener hears of an interruption only now that the new connection listens.
        self.tell_all("reconnected");
        let (mut sink, mut stream) = pubsub.split();
        let limit = self.connection.response_timeout();
        let mut check = tokio::time::interval_at(tokio::time::Instant::now() + CHECK, CHECK);
        let mut next = first;
        loop {
            if let Some(subscribe) = next.take() {
                if let Some(sender) = self.channels.get(&subscribe.channel) {
                    drop(subscribe.granted.send(Ok(sender.subscribe())));
                } else {
                    match tokio::time::timeout(limit, sink.subscribe(&subscribe.channel)).await {
                        Ok(Ok(())) => {
                            let (sender, receiver) = broadcast::channel(BUFFER);
                            self.channels.insert(subscribe.channel, sender);
                            drop(subscribe.granted.send(Ok(receiver)));
                        }
                        Ok(Err(error)) => {
                            let error = failed(error);
                            let reason = error.to_string();
                            drop(subscribe.granted.send(Err(error)));
                            return Some(reason);
                        }
                        Err(_) => return Some("no answer in time".to_owned()),
                    }
                }
            }
            tokio::select! {
                subscribe = self.received.recv() => next = Some(subscribe?),
                message = stream.next() => {
                    let Some(message) = message else { return Some("closed by the server".to_owned()) };
                    if message.get_channel_name() == self.wakes {
                        self.waiting.wake(message.get_payload_bytes());
                    } else if let Some(sender) = self.channels.get(message.get_channel_name()) {
                        // Nobody may listen at the moment.
                        drop(sender.send(Heard::Message(message.get_payload_bytes().to_vec().into())));
                    }
                }
                // The sender lives as long as the connection.
                _ = demotions.changed() => return Some("the server is no longer the master".to_owned()),
                _ = check.tick() => {
                    // A dead network is only noticed by who asks.
                    match tokio::time::timeout(limit, sink.ping::<redis::Value>()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return Some(failed(error).to_string()),
                        Err(_) => return Some("no answer in time".to_owned()),
                    }
                    let unheard: Vec<String> =
                        self.channels.iter().filter(|(_, sender)| sender.receiver_count() == 0).map(|(channel, _)| channel.clone()).collect();
                    for channel in unheard {
                        self.channels.remove(&channel);
                        if let Err(error) = sink.unsubscribe(&channel).await {
                            return Some(failed(error).to_string());
                        }
                    }
                }
            }
        }
    }

    fn tell_all(&self, reason: &str) {
        for sender in self.channels.values() {
            drop(sender.send(Heard::Interrupted(reason.to_owned())));
        }
    }
}
