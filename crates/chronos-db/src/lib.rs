//! Versioned, multi-tenant JSON records: every write is a new immutable version.

mod clock;
pub mod config;
#[cfg(any(feature = "mongodb", feature = "s3", feature = "azure"))]
mod crypto;
pub mod documents;
mod error;
pub mod fail;
mod hash;
mod json;
mod name;
pub mod objects;
mod route;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::{Clock, Random, Runtime, SystemClock, SystemRandom, Timestamp};
pub use error::{Error, ErrorKind, Result};
pub use json::{Json, bson_to_json, json_to_bson};
pub use name::{MAX_NAME_BYTES, validate_name};
pub use route::{Backend, Distribution, Resolved, Route, Router, Tier};
