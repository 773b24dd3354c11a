//! Waiting for messages: what a waiting call leaves on the shards, so that it is woken.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::RedisHot;
use super::batches::millis;
use super::calls::together;
use super::connection::at_once;
use super::errors::is_refusal;
use super::listen::Heard;
use super::pull::REFUSED;
use super::script::{Args, scripts};
use super::script_result::{Known, ScriptError, ScriptResult};
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// After how long a waiter looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a consumer that waits is called, unless it says so again.
const WAITS: Duration = Duration::from_secs(15);

/// What a consumer that waits has put on each shard. The next one who waits for the same takes its place
/// there.
pub(super) struct Armed<'a> {
    hot: &'a RedisHot,
    subscription: &'a SubscriptionName,
    put: Mutex<HashMap<u16, String>>,
}

impl<'a> Armed<'a> {
    pub(super) fn new(hot: &'a RedisHot, subscription: &'a SubscriptionName) -> Self {
        Self { hot, subscription, put: Mutex::default() }
    }

    /// What is on a shard of this one, or of one that waits no more.
    fn take(&self, shard: u16) -> String {
        let own = self.put.lock().remove(&shard);
        own.unwrap_or_else(|| {
            let mut left = self.hot.left.lock();
            left.get_mut(self.subscription).and_then(|left| left.get_mut(&shard)?.pop()).unwrap_or_default()
        })
    }

    /// It went with its subscription.
    pub(super) fn forget(&self) {
        self.put.lock().clear();
    }

    fn keep(&self, shard: u16, put: String) {
        if !put.is_empty() {
            self.put.lock().insert(shard, put);
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let put = std::mem::take(&mut *self.put.lock());
        if !put.is_empty() {
            let mut left = self.hot.left.lock();
            let left = left.entry(self.subscription.clone()).or_default();
            for (shard, put) in put {
                left.entry(shard).or_default().push(put);
            }
        }
    }
}

impl RedisHot {
    /// Waits until there may be something for a subscription, at most this long.
    pub(super) async fn wait_for(&self, subscription: &SubscriptionName, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout.min(Duration::from_secs(24 * 3_600));
        // First listen, then look: what comes after the look is heard.
        let mut waiter = self.listener.wait(self.keys.stream(subscription.topic(), 0), subscription.name());
        let mut receiver = match tokio::time::timeout_at(
            deadline,
            self.listener.listen(self.keys.wake(&self.process, self.connection.is_cluster())),
        )
        .await
        {
            Err(_) => return Ok(()),
            Ok(Ok(receiver)) => Some(receiver),
            Ok(Err(error)) if error.kind() == ErrorKind::Closed => return Err(error),
            Ok(Err(error)) => {
                tracing::warn!(%error, "waiting without being woken");
                None
            }
        };
        let (number, armed) = (self.turn(), Armed::new(self, subscription));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let armed = &armed;
            let due = match on!(self, subscription subscription, |known| self.arm(subscription, number, armed, known))
            {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    armed.forget();
                    return Err(error);
                }
                due => due?,
            };
            if left.is_zero() || due == Some(Duration::ZERO) {
                return Ok(());
            }
            let until = due.map_or(deadline, |due| deadline.min(Instant::now() + due));
            let Some(receiver) = &mut receiver else {
                tokio::time::sleep_until(until.min(Instant::now() + Duration::from_millis(250))).await;
                continue;
            };
            // One is woken; if that one comes to nothing, or the call gets lost between the nodes of a
            // cluster, the others look, too.
            let look_again = until.min(Instant::now() + LOOK_AGAIN);
            tokio::select! {
                () = tokio::time::sleep_until(look_again) => {
                    if look_again == until {
                        return Ok(());
                    }
                }
                () = waiter.woken() => return Ok(()),
                heard = receiver.recv() => match heard {
                    Err(RecvError::Closed) => return Err(Error::new(ErrorKind::Closed, "the connection to Redis was closed")),
                    Ok(Heard::Message(_) | Heard::Interrupted(_)) | Err(RecvError::Lagged(_)) => return Ok(()),
                },
            }
        }
    }

    /// Says on all shards that a consumer waits, for a while; when something is due at the earliest, if
    /// known. `armed` is what it put there.
    pub(super) async fn arm(
        &self,
        subscription: &SubscriptionName,
        number: u64,
        armed: &Armed<'_>,
        known: &Known,
    ) -> ScriptResult<Option<Duration>> {
        let channel = self.keys.wake(&self.process, self.connection.is_cluster());
        let channel = &channel;
        let arm = |shard| async move {
            let before = armed.take(shard);
            let args = Args::new()
                .arg(&known.stamp)
                .arg(subscription.name())
                .arg(millis(WAITS))
                .arg(channel)
                .arg(number)
                .arg(before);
            let asked = self.ask(subscription, shard, &scripts::arm, &args);
            let mut reply = match if known.shards > 1 { at_once(asked).await } else { asked.await } {
                // The others are waited for meanwhile.
                Err(ScriptError::Failed(error)) if known.shards > 1 && is_refusal(&error) => {
                    return Ok(i64::try_from(REFUSED.as_millis()).unwrap_or(0));
                }
                asked => asked?,
            };
            let (due, put) = (reply.number()?, reply.text()?);
            armed.keep(shard, put);
            Ok::<_, ScriptError>(due)
        };
        let dues = together((0..known.shards).map(|shard| arm(shard).boxed()).collect()).await?;
        Ok(dues.into_iter().filter_map(|due| u64::try_from(due).ok()).min().map(Duration::from_millis))
    }
}
