//! Administration: looking after the connections, storages and buckets of a configuration.
//!
//! [`Admin`] is the handle, with an action a file: `health` asks every connection and storage whether it answers,
//! `storage_check` every bucket, `spaces_check` holds object storages against DigitalOcean's rules, `buckets` checks
//! and creates buckets, `backends` lists what routes lead to. `places` knows which storages and buckets those are,
//! `ping` asks one of them and waits no longer than its limit. Nothing here reads or writes a record; what is
//! done to the records of one collection are actions of [`Collection`](crate::Collection).

mod backends;
mod buckets;
mod health;
mod ping;
mod places;
mod spaces_check;
mod storage_check;

pub use self::backends::BackendInfo;
pub use self::buckets::{BucketStatus, EnsureBuckets, EnsuredBuckets};
pub use self::health::{CheckHealth, DatabaseHealth, Health};
pub use self::ping::Ping;
pub use self::spaces_check::{CheckSpaces, SpaceCheck};
pub use self::storage_check::{CheckStorage, StorageCheck};
use crate::Chronos;

impl Chronos {
    /// Returns the handle of administration.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// use chronos_db::{Chronos, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// let health = chronos.admin().health().await?;
    /// assert!(health.is_ok(), "{:#}", health.to_json());
    /// # chronos.shutdown().await
    /// # }
    /// ```
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { chronos: self.clone() }
    }
}

/// Looks after the connections, storages and buckets of a configuration; see [`Chronos::admin`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    chronos: Chronos,
}
