//! Topics, subscriptions, and what goes through them.
//!
//! A file for each thing a user holds (`topic.rs`, `subscription.rs`, `message.rs`) and does, with the method
//! that begins it (`publish.rs`, `consume.rs`, `receive.rs`, `run.rs`, `replay.rs`, `dead.rs`); `driver.rs`
//! is the loop behind a runner, `lock_guard.rs` renews the locks of messages in hand. All of it works on the
//! hot tier's traits, never on one store.

use std::fmt;
use std::sync::Arc;

use crate::context::Context;
use crate::{Result, Scope, TopicName};

mod actions;
pub(crate) mod codec;
mod consume;
mod control;
mod dead;
mod driver;
mod lock_guard;
mod message;
mod outcome;
mod polling;
mod publish;
mod publish_message;
mod receive;
mod replay;
mod run;
mod shutdown;
mod subscription;
mod topic;
mod trace;

pub use actions::{EnsureSubscription, EnsureTopic};
pub use consume::{Consume, Consumer};
pub use dead::{DeadLetters, Purge, Redrive};
pub use lock_guard::Cancelled;
pub(crate) use lock_guard::LockRenewer;
pub use message::{Message, Nack, Received};
pub use outcome::Outcome;
pub use publish::{Ack, Publish, PublishBatch};
pub use publish_message::PublishMessage;
pub use replay::Replay;
pub use run::{Run, Runner};
pub use subscription::Subscription;
pub use topic::Topic;
pub use trace::TraceContext;

/// Lets an action be awaited; with an [`Operation`](crate::metrics::Operation), it is measured.
macro_rules! runs {
    ([$($generics:tt)*] $action:ty => $output:ty, $operation:ident by $($connection:ident).+) => {
        impl<$($generics)*> std::future::IntoFuture for $action {
            type Output = crate::Result<$output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                let counters = std::sync::Arc::clone(&self.$($connection).+.counters);
                Box::pin(async move { counters.watch(crate::metrics::Operation::$operation, self.run()).await })
            }
        }
    };
    ([$($generics:tt)*] $action:ty => $output:ty) => {
        impl<$($generics)*> std::future::IntoFuture for $action {
            type Output = crate::Result<$output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.run())
            }
        }
    };
    ($action:ty => $output:ty, $operation:ident by $($connection:ident).+) => {
        crate::bus::runs!([] $action => $output, $operation by $($connection).+);
    };
}
pub(crate) use runs;

/// Topics of one tenant and namespace.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Context>,
    scope: Scope,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Bus {
    pub(crate) fn new(inner: Arc<Context>, scope: Scope) -> Self {
        Self { inner, scope }
    }

    /// Returns the same of another tenant.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn tenant(&self, tenant: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(tenant, self.scope.namespace())?, inner: Arc::clone(&self.inner) })
    }

    /// Returns the same of another namespace.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(self.scope.tenant(), namespace)?, inner: Arc::clone(&self.inner) })
    }

    /// Returns a handle of a topic. Does no I/O: the topic need not be there yet.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic { inner: Arc::clone(&self.inner), name: TopicName::new(&self.scope, name)? })
    }

    /// Returns the names of the topics there are, in their order.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn topics(&self) -> Result<Vec<String>> {
        self.inner.hot.topics(&self.scope).await.map_err(|error| error.during("topics"))
    }

    /// Measures what the topics hold now, for the recorder of the facade `metrics`: `chronow_topic_messages`,
    /// and for each subscription `chronow_backlog`, `chronow_pending`, `chronow_scheduled`, `chronow_deferred`,
    /// `chronow_dead_letters` and `chronow_lag_seconds`, the age of the oldest message that is not settled. A
    /// program that is scraped calls it every some seconds; what the connection itself did is measured as it
    /// happens. [`METRICS`](crate::METRICS) lists all of them.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// let chronow = chronow::Chronow::connect(config, None).await?;
    /// chronow.bus().topic("orders")?.ensure().await?;
    /// chronow.bus().measure().await?; // chronow_topic_messages{topic="orders",…} 0
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn measure(&self) -> Result<()> {
        let mut topics = Vec::new();
        for name in self.topics().await? {
            match self.topic(&name)?.stats().await {
                Ok(stats) => topics.push((name, stats)),
                // Another process was quick to delete it.
                Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.counters.topics(&self.scope, &topics);
        Ok(())
    }
}
