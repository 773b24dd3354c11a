//! Dead letters: looking at them, giving them back, removing them.

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::runs;
use super::subscription::Subscription;
use crate::headers::strip;
use crate::hot::{DeadLetter, Select};
use crate::payloads::resolve;
use crate::{Error, ErrorKind, Page, Result};

/// Dead letters per page, unless something else is said.
const PAGE: u32 = 100;

impl Subscription {
    /// Lists the dead letters, oldest first.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// # let orders = chronow.bus().topic("orders")?;
    /// # orders.ensure().await?;
    /// # let billing = orders.subscription("billing")?;
    /// # billing.ensure().max_deliveries(1).await?;
    /// orders.publish(&7).await?;
    /// let order = billing.receive::<i64>(1).await?.remove(0);
    /// order.dead_letter("no such customer").await?;
    ///
    /// let chronow::Page { items: letters, next, .. } = billing.dead_letters().limit(10).await?;
    /// assert_eq!((letters[0].reason.as_str(), next), ("no such customer", None));
    /// // Once the cause is gone, all of them come again, to this subscription alone.
    /// assert_eq!(billing.redrive().await?, 1);
    /// assert_eq!(billing.receive::<i64>(1).await?.len(), 1);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription; `VALIDATION_ERROR` for a wrong cursor; `HOT_TIER_ERROR`
    /// or `WARM_TIER_ERROR` if a store fails.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.clone())
    }

    /// Gives dead letters back to this subscription alone, with a new delivery count. All, unless something
    /// else is said. Returns how many.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription; `HOT_TIER_ERROR` if the store fails.
    pub fn redrive(&self) -> Redrive {
        Redrive::new(self.clone())
    }

    /// Removes dead letters. All, unless something else is said. Returns how many.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such subscription; `HOT_TIER_ERROR` if the store fails.
    pub fn purge_dead_letters(&self) -> Purge {
        Purge::new(self.clone())
    }
}

/// Lists dead letters; see [`Subscription::dead_letters`]. Awaiting it brings one page, and the cursor of the
/// next one if there is more.
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct DeadLetters {
    subscription: Subscription,
    after: Option<String>,
    limit: u32,
}

impl DeadLetters {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, after: None, limit: PAGE }
    }

    /// Goes on behind a page.
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.after = Some(cursor.into());
        self
    }

    /// Limits a page to this many (default 100).
    pub fn limit(mut self, letters: u32) -> Self {
        self.limit = letters.max(1);
        self
    }

    /// Streams all of them, page by page.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<DeadLetter>> {
        let pages = stream::try_unfold(Some(self), |page| async move {
            let Some(page) = page else { return Ok(None) };
            let Page { items, next, .. } = page.clone().run().await?;
            Ok::<_, crate::Error>(Some((
                stream::iter(items.into_iter().map(Ok)),
                next.map(|next| page.after(next)),
            )))
        });
        pages.try_flatten().boxed()
    }

    async fn run(self) -> Result<Page<DeadLetter>> {
        let Self { subscription, after, limit } = self;
        let (inner, name) = (&subscription.inner, &subscription.name);
        let page = async {
            let mut page = inner.hot.dead_letters(name, after.as_deref(), limit).await?;
            for DeadLetter { message, .. } in &mut page.items {
                match resolve(inner.payloads(), name.topic(), message).await {
                    // A payload that is gone may be why it is here.
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => strip(&mut message.headers),
                }
            }
            Ok(page)
        };
        page.await.map_err(|error: Error| error.during("dead_letters").on(name))
    }
}

runs!(DeadLetters => Page<DeadLetter>, DeadLetters by subscription.inner);

macro_rules! on_dead_letters {
    ($(#[$doc:meta])* $action:ident, $method:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "an action runs when it is awaited"]
        pub struct $action {
            subscription: Subscription,
            select: Select,
        }

        impl $action {
            pub(super) fn new(subscription: Subscription) -> Self {
                Self { subscription, select: Select::All }
            }

            /// Takes at most this many, the oldest first.
            pub fn oldest(mut self, letters: u64) -> Self {
                self.select = Select::Oldest(letters);
                self
            }

            /// Takes only these.
            pub fn ids(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
                self.select = Select::Ids(ids.into_iter().map(Into::into).collect());
                self
            }

            async fn run(self) -> Result<u64> {
                let Self { subscription, select } = self;
                subscription.inner.audit_now(&subscription.name).await;
                let done = subscription.inner.hot.$method(&subscription.name, &select).await;
                done.map_err(|error| error.during(stringify!($method)).on(&subscription.name))
            }
        }

        runs!($action => u64, $action by subscription.inner);
    };
}

on_dead_letters! {
    /// Gives dead letters back; see [`Subscription::redrive`]. Answers how many.
    Redrive, redrive
}

on_dead_letters! {
    /// Removes dead letters; see [`Subscription::purge_dead_letters`]. Answers how many.
    Purge, purge_dead_letters
}
