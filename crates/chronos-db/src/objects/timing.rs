//! How long requests to a storage may take, and which of them are made again.

use std::time::Duration;

use super::failure::Failure;

/// How long a storage may take to answer, beside the time its bytes need.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest line an object is expected to travel, in bytes a second.
const SLOWEST_LINE: u64 = 256 * 1024;

/// How often a request that is the same when it is made twice is made before silence is an error.
const SILENT_ATTEMPTS: u32 = 3;

/// Waits for `work` no longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
}

/// Makes a request that is the same when it is made twice, and again if no answer comes: a connection can die
/// without a word, and the next attempt is made on another one.
pub(super) async fn repeatable<T, F: Future<Output = Result<T, Failure>>>(
    request: impl Fn() -> F,
) -> Result<T, Failure> {
    for _ in 1..SILENT_ATTEMPTS {
        match request().await {
            Err(failure) if failure.is_silence() => {}
            answered => return answered,
        }
    }
    request().await
}

/// How long an answer of this many bytes may take.
pub(super) fn time_for(bytes: u64) -> Duration {
    TIMEOUT + Duration::from_secs(bytes / SLOWEST_LINE)
}
