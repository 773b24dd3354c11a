//! The handle of the fallback queue.

use std::sync::Arc;

use bson::Document;

use super::entry::parse_request_id;
use super::failed::FailedQueue;
use super::queue::Queue;
use super::queued::QueuedOperation;
use crate::chronos::Chronos;
use crate::{Error, ErrorKind, Result};

/// The operations that wait, as [`Chronos::fallback`] returns it. Cheap to clone.
///
/// Every method begins an action: a builder that runs when it is awaited.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> chronos_db::Result<()> {
/// use chronos_db::{Chronos, Route, config::{Config, Fallback}, json};
/// # let dir = tempfile::tempdir().unwrap();
/// let config = Config::embedded_builder(dir.path()).fallback(Fallback::default()).build()?;
/// let chronos = Chronos::open(config)?;
/// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
///
/// let written = users.create(json!({"email": "ada@example.org"})).await?;
/// if let Some(request) = &written.queued {
///     println!("{} will be created as {}", written.id, request);
/// }
/// let fallback = chronos.fallback()?;
/// let retried = fallback.retry_due().await?;
/// assert_eq!((retried.done, retried.waiting), (0, 0));
/// # chronos.shutdown().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FallbackQueue {
    pub(super) chronos: Chronos,
    pub(super) queues: Vec<Arc<Queue>>,
}

impl Chronos {
    /// Returns the operations that wait because they failed in a way that passes. No I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration has no `fallback`.
    pub fn fallback(&self) -> Result<FallbackQueue> {
        let queues = self.queues().ok_or_else(|| {
            Error::validation("the configuration has no `fallback`, so nothing is ever queued")
                .during("fallback")
        })?;
        Ok(FallbackQueue { chronos: self.clone(), queues: queues.all(self.config())? })
    }
}

/// The identity that a request id names.
pub(super) fn identity(request_id: &str) -> Result<bson::oid::ObjectId> {
    parse_request_id(request_id).ok_or_else(|| unknown(request_id))
}

pub(super) fn unknown(request_id: &str) -> Error {
    Error::not_found(format!("no operation `{}` waits or was given up", request_id.escape_debug()))
        .during("fallback")
}

/// Asks one queue after the other for an operation. One that does not answer holds up no other, but then it may be there.
pub(super) async fn find<'q, F>(
    queues: &'q [Arc<Queue>],
    request_id: &str,
    ask: impl Fn(&'q Queue) -> F,
) -> Result<QueuedOperation>
where
    F: Future<Output = Result<Option<Document>>> + 'q,
{
    let mut failed = None;
    for queue in queues {
        match ask(queue).await {
            Ok(Some(stored)) => return Ok(QueuedOperation::read(&stored)),
            Ok(None) => {}
            // The operation is there, and another process is at it.
            Err(error) if error.kind() == ErrorKind::Locked => return Err(error),
            Err(error) => failed = failed.or(Some(FailedQueue::new(queue, error))),
        }
    }
    Err(failed.map_or_else(|| unknown(request_id), FailedQueue::into_error))
}
