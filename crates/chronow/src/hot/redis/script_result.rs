//! What a script of a topic answers, or why it did not.

use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// Why a script did not do it.
pub(super) enum ScriptError {
    NoTopic,
    NoSubscription,
    /// The topic is another one than we thought, such as one with another number of shards.
    Stale,
    Full(u64),
    /// One of these subscriptions may have room to give back.
    Crowded(Vec<String>),
    /// The options changed meanwhile.
    Changed,
    /// Another process is removing it.
    Dying,
    /// Another script has to do it; nothing was done.
    Other,
    Failed(Error),
}

impl From<Error> for ScriptError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type ScriptResult<T> = Result<T, ScriptError>;

/// Which topic of a name it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) shards: u16,
    /// The number of shards and the generation, as the scripts compare them.
    pub(super) stamp: Arc<str>,
}

impl Known {
    pub(super) fn read(stamp: &str) -> Result<Self> {
        let shards = stamp.split_once(':').and_then(|(shards, _)| shards.parse().ok());
        let shards = shards.ok_or_else(|| {
            Error::new(
                ErrorKind::HotTier,
                format!("Redis holds `{stamp}` where the stamp of a topic belongs"),
            )
        })?;
        Ok(Self { shards, stamp: stamp.into() })
    }
}
