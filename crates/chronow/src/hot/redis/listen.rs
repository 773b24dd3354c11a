//! One connection of its own for all channels somebody listens to: it never holds up commands, and comes back by itself.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use redis::aio::PubSub;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::link::{SharedLink, failed};
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

struct Wish {
    channel: String,
    granted: oneshot::Sender<Result<broadcast::Receiver<Heard>>>,
}

/// Listens as long as it lives.
#[derive(Debug)]
pub(super) struct Listener {
    wishes: mpsc::UnboundedSender<Wish>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

const BUFFER: usize = 1_024;
const CHECK: Duration = Duration::from_secs(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Listener {
    /// Connects when somebody first wants to listen.
    pub(super) fn start(link: SharedLink) -> Self {
        let (wishes, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(Task { link, received, channels: HashMap::new() }.run());
        Self { wishes, task: std::sync::Mutex::new(Some(task)) }
    }

    /// Everything sent to `channel` after this returned is heard, or an interruption.
    pub(super) async fn listen(&self, channel: String) -> Result<broadcast::Receiver<Heard>> {
        let over = || Error::new(ErrorKind::Closed, "the connection to Redis was closed");
        let (granted, answer) = oneshot::channel();
        self.wishes.send(Wish { channel, granted }).map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }

    pub(super) fn stop(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Task {
    link: SharedLink,
    received: mpsc::UnboundedReceiver<Wish>,
    channels: HashMap<String, broadcast::Sender<Heard>>,
}

impl Task {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(50);
        while let Some(wish) = self.received.recv().await {
            let mut first = Some(wish);
            loop {
                match self.connect().await {
                    Ok(pubsub) => {
                        pause = Duration::from_millis(50);
                        let reason = self.serve(pubsub, first.take()).await;
                        let Some(reason) = reason else { return };
                        tracing::warn!(%reason, "the connection that listens to Redis broke");
                        self.tell_all(&reason);
                    }
                    Err(error) => {
                        if let Some(wish) = first.take() {
                            // The asker may have gone.
                            drop(wish.granted.send(Err(error)));
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
                while let Ok(wish) = self.received.try_recv() {
                    let error = Error::new(ErrorKind::HotTier, "the connection that listens to Redis is down").retryable();
                    drop(wish.granted.send(Err(error)));
                }
            }
        }
    }

    async fn connect(&self) -> Result<PubSub> {
        let limit = self.link.response_timeout();
        let late = || Error::new(ErrorKind::HotTier, "Redis did not answer in time").retryable();
        let mut pubsub = tokio::time::timeout(limit, self.link.pubsub()).await.map_err(|_| late())??;
        for channel in self.channels.keys() {
            tokio::time::timeout(limit, pubsub.subscribe(channel)).await.map_err(|_| late())?.map_err(failed)?;
        }
        Ok(pubsub)
    }

    /// Until the connection breaks (with the reason), or nobody is left who could wish for something.
    async fn serve(&mut self, pubsub: PubSub, first: Option<Wish>) -> Option<String> {
        // Whoever listened across an interruption hears of it only now that the new connection listens.
        self.tell_all("reconnected");
        let (mut sink, mut stream) = pubsub.split();
        let limit = self.link.response_timeout();
        let mut check = tokio::time::interval_at(tokio::time::Instant::now() + CHECK, CHECK);
        let mut next = first;
        loop {
            if let Some(wish) = next.take() {
                if let Some(sender) = self.channels.get(&wish.channel) {
                    drop(wish.granted.send(Ok(sender.subscribe())));
                } else {
                    match tokio::time::timeout(limit, sink.subscribe(&wish.channel)).await {
                        Ok(Ok(())) => {
                            let (sender, receiver) = broadcast::channel(BUFFER);
                            self.channels.insert(wish.channel, sender);
                            drop(wish.granted.send(Ok(receiver)));
                        }
                        Ok(Err(error)) => {
                            let error = failed(error);
                            let reason = error.to_string();
                            drop(wish.granted.send(Err(error)));
                            return Some(reason);
                        }
                        Err(_) => return Some("no answer in time".to_owned()),
                    }
                }
            }
            tokio::select! {
                wish = self.received.recv() => next = Some(wish?),
                message = stream.next() => {
                    let Some(message) = message else { return Some("closed by the server".to_owned()) };
                    if let Some(sender) = self.channels.get(message.get_channel_name()) {
                        // Nobody may listen at the moment.
                        drop(sender.send(Heard::Message(message.get_payload_bytes().to_vec().into())));
                    }
                }
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
