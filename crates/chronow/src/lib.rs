//! Shared memory and topics that keep their promises: on Redis, on MongoDB alone, or embedded.

mod error;
pub mod hot;
mod names;
#[cfg(feature = "testing")]
pub mod testing;

pub use chronos_db::{Json, Timestamp};
pub use error::{Error, ErrorKind, Result};
pub use names::{Scope, SubscriptionName, TopicName};
