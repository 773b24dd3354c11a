//! A limit for all the calls of a piece of work together.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static END: Instant;
    static SHARE: f64;
}

/// Bounds every call that `work` makes to a document store on a server, so that none of them goes on for
/// longer than `limit` from now. A limit around this one that ends earlier stays.
///
/// It bounds the calls, not what lies between them, and not the tasks that `work` spawns.
///
/// ```
/// # async fn example(documents: &dyn chronos_db::documents::DocumentStore) -> chronos_db::Result<()> {
/// use std::time::Duration;
///
/// let now = chronos_db::documents::within(Duration::from_secs(5), documents.now()).await?;
/// # let _ = now; Ok(()) }
/// ```
pub async fn within<F: Future>(limit: Duration, work: F) -> F::Output {
    let limit = END.try_with(|end| end.saturating_duration_since(Instant::now()).min(limit)).unwrap_or(limit);
    END.scope(Instant::now() + limit, work).await
}

/// Gives every call that `work` makes only this share of the time that a call may take, where something must
/// follow it in the rest of that time.
pub(crate) async fn with_share<F: Future>(share: f64, work: F) -> F::Output {
    SHARE.scope(share, work).await
}

/// How long a call may take here that may take `limit` by itself.
#[cfg_attr(not(feature = "mongodb"), allow(dead_code, reason = "embedded calls need no limit"))]
pub(crate) fn at_most(limit: Duration) -> Duration {
    let limit = SHARE.try_with(|share| limit.mul_f64(*share)).unwrap_or(limit);
    END.try_with(|end| end.saturating_duration_since(Instant::now()).min(limit)).unwrap_or(limit)
}
