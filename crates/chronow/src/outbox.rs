//! Publishing with the warm tier first: what is about to be published is kept there, published under the id
//! it is deduplicated by, kept as a copy under the id it got, and no more about to be published. What a
//! process leaves in the middle of that is put into the hot tier by the process that opens the topic next;
//! the dedup id sees to it that what was there already is not there twice, as long as the topic's dedup
//! window remembers it.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Random as _, SystemRandom};
use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::hot::{HotTier, OutboundMessage, PublishAck};
use crate::warm::{COPIED, Warm};
use crate::{Error, ErrorKind, Result, Timestamp, TopicName};

/// What is younger may be in the hands of its publisher; on topics that remember no dedup ids, that counts
/// for more.
const YOUNG: Duration = Duration::from_secs(2);
const YOUNG_WITHOUT_WINDOW: Duration = Duration::from_secs(30);
/// Messages put back in one step.
const BATCH: usize = 100;
/// Waits after failures: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Publishes with the warm tier first.
pub(crate) async fn publish(
    inner: &Context,
    topic: &TopicName,
    mut messages: Vec<OutboundMessage>,
) -> Result<Vec<PublishAck>> {
    let warm = inner.warm_tier()?;
    let now = inner.hot.now().await.map_err(|error| error.during("now"))?;
    for message in &mut messages {
        if message.dedup_id.as_deref().unwrap_or("").is_empty() {
            message.dedup_id =
                Some(format!("cw-{:016x}{:016x}", SystemRandom.next_u64(), SystemRandom.next_u64()));
        }
        message.headers.insert(COPIED.to_owned(), "1".to_owned());
    }
    let ids = messages.iter().filter_map(|message| message.dedup_id.clone()).collect();
    warm.stage(topic, now, &messages).await?;
    let published = match inner.hot.publish(topic, messages.clone()).await {
        Ok(published) => published,
        Err(error) if is_refused(&error) => {
            warm.confirm(topic, ids).await?;
            return Err(error);
        }
        Err(error) => {
            inner.put_back(topic)?;
            let message = format!(
                "the messages are kept in the warm tier and will be put into the hot one, which failed: {}",
                error.message()
            );
            return Err(error.saying(message).retryable());
        }
    };
    if let Err(error) = finish(warm, topic, now, messages, &published).await {
        inner.put_back(topic)?;
        return Err(error);
    }
    Ok(published)
}

/// Whether it is certain that nothing was accepted.
pub(crate) fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Full | ErrorKind::Validation | ErrorKind::Closed)
}

/// Keeps copies of what is published, under the ids it got.
async fn finish(
    warm: &Warm,
    topic: &TopicName,
    at: Timestamp,
    messages: Vec<OutboundMessage>,
    published: &[PublishAck],
) -> Result<()> {
    let ids = messages.iter().filter_map(|message| message.dedup_id.clone()).collect();
    let copies = published
        .iter()
        .zip(messages)
        .map(|(published, message)| message.stored(published.id.clone(), at))
        .collect();
    warm.keep(topic, copies).await?;
    // It is published and kept; that it was about to be may be forgotten later.
    if let Err(error) = warm.confirm(topic, ids).await {
        tracing::warn!(topic = %topic, %error, "what is published still counts as about to be; it is looked at again when the topic is opened");
    }
    Ok(())
}

/// Puts messages back in the background, until none is left or the connection is closed.
struct Restorer {
    hot: Arc<dyn HotTier>,
    warm: Warm,
    topic: TopicName,
    closing: CancellationToken,
}

impl Context {
    /// Looks in the background for what another process left about to be published.
    pub(crate) fn put_back(&self, topic: &TopicName) -> Result<()> {
        let Some(warm) = self.warm() else { return Ok(()) };
        let restorer = Restorer {
            hot: Arc::clone(&self.hot),
            warm: warm.clone(),
            topic: topic.clone(),
            closing: self.tasks.closing(),
        };
        self.tasks.spawn(restorer.run()).map(drop)
    }
}

impl Restorer {
    async fn run(self) {
        let mut wait = FIRST_WAIT;
        loop {
            let left = match self.restore().await {
                Ok(None) => return,
                Ok(Some(left)) => left,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Closed | ErrorKind::Unsupported
                    ) =>
                {
                    return;
                }
                Err(error) => {
                    tracing::warn!(topic = %self.topic, %error, "messages of the warm tier wait to be put into the hot one");
                    wait = (wait * 2).min(LONGEST_WAIT);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Puts back what is old enough. Answers when to look again, if something is left.
    async fn restore(&self) -> Result<Option<Duration>> {
        let Some(options) = self.hot.topic(&self.topic).await.map_err(|error| error.during("topic"))? else {
            return Ok(None);
        };
        let young = if options.dedup_window.is_zero() { YOUNG_WITHOUT_WINDOW } else { YOUNG };
        let now = self.hot.now().await.map_err(|error| error.during("now"))?;
        let mut chunks = self.warm.staged(&self.topic, now)?.try_chunks(BATCH);
        while let Some(chunk) = chunks.try_next().await.map_err(|failed| failed.1)? {
            let count = chunk.len();
            let age = |at: Timestamp| {
                Duration::from_millis(u64::try_from(now.as_millis() - at.as_millis()).unwrap_or(0))
            };
            let old: Vec<(Timestamp, OutboundMessage)> =
                chunk.into_iter().filter(|(at, _)| age(*at) >= young).collect();
            let left = count - old.len();
            for (at, message) in old {
                // Each by itself: they need not have been published together, and one that is refused is
                // nobody else's fault.
                let published = match self.hot.publish(&self.topic, vec![message.clone()]).await {
                    Ok(published) => published,
                    Err(error) if error.kind() == ErrorKind::Validation => {
                        // It stays in the warm tier, and in nobody's way.
                        let id = message.dedup_id.as_deref();
                        tracing::error!(topic = %self.topic, id, %error, "the hot tier refuses a message of the warm tier");
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                tracing::info!(topic = %self.topic, id = published[0].id, "a message that was about to be published is published");
                finish(&self.warm, &self.topic, at, vec![message], &published).await?;
            }
            if left > 0 {
                return Ok(Some(young));
            }
        }
        Ok(None)
    }
}
