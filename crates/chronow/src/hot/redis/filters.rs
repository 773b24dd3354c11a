//! The filters of subscriptions, as this process remembers them.

use chronos_db::documents::filter::{Filter, parse};

use crate::hot::{StoredMessage, filter_view};
use crate::{Error, ErrorKind, Result};

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
