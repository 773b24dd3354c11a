//! The result of waiting for the flusher.

use crate::Error;
use crate::records::model::ItemId;

/// What still waits to be stored: committed, readable and safe in the version index, but not an object yet.
///
/// It compares with a number as [`waiting`](Self::waiting) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> chronos_db::Result<()> {
/// use std::time::Duration;
///
/// use chronos_db::{Chronos, Route, config::Config, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let chronos = Chronos::open(Config::embedded(dir.path()))?;
/// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
/// users.create(json!({"name": "ann"})).await?;
///
/// let report = users.flush(Duration::from_secs(10)).await?;
/// for version in &report.failing {
///     eprintln!("version {} of {} is not stored: {}", version.ov, version.id, version.error);
/// }
/// assert_eq!(report, 0);
/// # chronos.shutdown().await
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FlushReport {
    /// All versions of the collection that wait, this process's and others'.
    pub waiting: u64,
    /// Those that this process committed.
    pub own: u64,
    /// Those of others that have waited for more than five seconds: their writers probably ended, or their
    /// objects cannot be stored.
    pub left: u64,
    /// How many versions this process tried to store without success, as far as it remembers (1,024 of them).
    pub failed: u64,
    /// Some of these, up to a hundred, with what went wrong. They are tried again, after growing waits.
    pub failing: Vec<FailingVersion>,
}

impl PartialEq<u64> for FlushReport {
    fn eq(&self, waiting: &u64) -> bool {
        self.waiting == *waiting
    }
}

/// A version that could not be stored at the last try.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailingVersion {
    /// Its collection.
    pub collection: String,
    /// Its item.
    pub id: ItemId,
    /// Its number.
    pub ov: i64,
    /// How often it was tried.
    pub tries: u32,
    /// What the storage said.
    pub error: Error,
}
