//! The filters of subscriptions, as this process remembers them.

use std::sync::Arc;

use chronos_db::documents::filter::{Filter, parse};

use super::RedisHot;
use super::calls::{Known, ScriptError, ScriptResult};
use crate::hot::{StoredMessage, filter_view};
use crate::{Error, ErrorKind, Result, SubscriptionName};

/// The filter of a subscription, read once per version of its options.
pub(super) struct Compiled {
    pub(super) version: String,
    pub(super) filter: Option<Filter>,
}

chronos_db::debug_some!(Compiled { version });

impl Compiled {
    pub(super) fn read(version: String, json: &str) -> Result<Self> {
        let filter = if json.is_empty() {
            None
        } else {
            let json = chronos_db::Json::parse(json).map_err(|error| {
                Error::new(ErrorKind::HotTier, "Redis holds a filter that cannot be read").caused_by(error)
            })?;
            Some(parse(&json, &mut |path| Ok(path.to_owned()))?)
        };
        Ok(Self { version, filter })
    }

    pub(super) fn lets_pass(&self, message: &StoredMessage) -> bool {
        let Some(filter) = &self.filter else { return true };
        filter.matches(&filter_view(message))
    }
}

impl RedisHot {
    pub(super) async fn current_filter(
        &self,
        subscription: &SubscriptionName,
        known: &Known,
    ) -> ScriptResult<Arc<Compiled>> {
        let options =
            self.read_subscription(subscription, known).await?.ok_or(ScriptError::NoSubscription)?;
        let json = options.filter.map(|filter| filter.to_string()).unwrap_or_default();
        Ok(Arc::new(Compiled::read(String::new(), &json)?))
    }
}
