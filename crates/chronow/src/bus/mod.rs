//! Topics, subscriptions, and what goes through them.

use std::fmt;
use std::sync::Arc;

use crate::client::Inner;
use crate::{Result, Scope, TopicName};

mod actions;
pub(crate) mod codec;
mod consume;
mod dead;
mod draft;
mod driver;
mod hold;
mod message;
mod run;
mod subscription;
mod topic;

pub use actions::{Ack, EnsureSubscription, EnsureTopic, Publish, PublishBatch};
pub use consume::{Consume, Consumer};
pub use dead::{DeadLetters, Purge, Redrive};
pub use draft::Draft;
pub use hold::Cancelled;
pub(crate) use hold::Keeper;
pub use message::{Message, Nack, Received};
pub use run::{Outcome, Run, Runner};
pub use subscription::{Replay, Subscription};
pub use topic::Topic;

macro_rules! runs {
    ([$($generics:tt)*] $action:ty => $output:ty) => {
        impl<$($generics)*> std::future::IntoFuture for $action {
            type Output = crate::Result<$output>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.run())
            }
        }
    };
    ($action:ty => $output:ty) => {
        crate::bus::runs!([] $action => $output);
    };
}
pub(crate) use runs;

/// Topics of one tenant and namespace.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
    scope: Scope,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Bus {
    pub(crate) fn new(inner: Arc<Inner>, scope: Scope) -> Self {
        Self { inner, scope }
    }

    /// The same of another tenant.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn tenant(&self, tenant: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(tenant, self.scope.namespace())?, inner: Arc::clone(&self.inner) })
    }

    /// The same of another namespace.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(self.scope.tenant(), namespace)?, inner: Arc::clone(&self.inner) })
    }

    /// A topic. No I/O: it need not be there yet.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        Ok(Topic { inner: Arc::clone(&self.inner), name: TopicName::new(&self.scope, name)? })
    }

    /// The topics there are, by name.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn topics(&self) -> Result<Vec<String>> {
        self.inner.hot.topics(&self.scope).await.map_err(|error| error.during("topics"))
    }
}
