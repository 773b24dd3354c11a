//! What the errors of Redis mean.

use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};

use crate::{Error, ErrorKind};

/// Whether a server said that it did nothing because it is a replica. Older servers wrap what a script ran
/// into.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == RedisKind::Server(ServerErrorKind::ReadOnly)
        || error.detail().is_some_and(|detail| detail.contains("-READONLY "))
}

/// Whether a node of a cluster said that a slot is on its way to another one.
pub(super) fn is_moving(error: &RedisError) -> bool {
    use ServerErrorKind as Said;
    matches!(error.kind(), RedisKind::Server(Said::Ask | Said::Moved | Said::TryAgain | Said::ClusterDown))
}

/// Whether a node of a cluster said that it did nothing, or was never reached.
pub(super) fn was_refused(error: &RedisError) -> bool {
    use ServerErrorKind as Said;
    match error.kind() {
        RedisKind::Server(kind) => {
            matches!(
                kind,
                Said::Moved
                    | Said::Ask
                    | Said::TryAgain
                    | Said::ClusterDown
                    | Said::MasterDown
                    | Said::BusyLoading
                    | Said::ReadOnly
            )
        }
        RedisKind::ClusterConnectionNotFound => true,
        _ => error.is_connection_refusal(),
    }
}

/// Whether a call failed so.
pub(super) fn is_refusal(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<RedisError>())
        .is_some_and(was_refused)
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection to Redis was closed")
}

/// What a failure of the driver or server means to the caller, in one line.
pub(super) fn failed(error: RedisError) -> Error {
    let hot = |text: &'static str| Error::new(ErrorKind::HotTier, text);
    let detail = error.detail().unwrap_or_default();
    // Older servers wrap what a script ran into.
    let code = ["OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"]
        .into_iter()
        .find(|code| detail.contains(&format!("-{code} ")))
        .unwrap_or_else(|| error.code().unwrap_or_default());
    let own = match code {
        "OOM" => hot("Redis is full (maxmemory with `noeviction`): consume, or give it more memory; nothing was changed").retryable(),
        "READONLY" => hot("the Redis server is a read-only replica, as after a failover; nothing was changed").retryable(),
        "LOADING" => hot("Redis is loading its data; nothing was changed").retryable(),
        "BUSY" => hot("Redis is busy with a script; nothing was changed").retryable(),
        "TRYAGAIN" | "ASK" | "MOVED" => hot("the slot of this key is moving to another Redis node; nothing was changed").retryable(),
        "CLUSTERDOWN" | "MASTERDOWN" => hot("Redis has no master for this key at the moment; nothing was changed").retryable(),
        "MISCONF" => hot("Redis refuses writes because it cannot save its data to disk").retryable(),
        "WRONGPASS" | "NOAUTH" => hot("Redis refused the user name or password"),
        "NOPERM" => {
            hot("the Redis user may not do this; it needs the commands for streams, sorted sets, hashes, scripts and channels").forbidden()
        }
        _ if error.kind() == RedisKind::AuthenticationFailed => hot("Redis refused the user name or password"),
        _ if error.is_timeout() => hot("Redis did not answer in time; the change may have taken place").retryable(),
        _ if error.is_connection_refusal() => hot("Redis cannot be reached").retryable(),
        _ if error.is_io_error() => hot("the connection to Redis broke; the change may have taken place").retryable(),
        _ => match error.kind() {
            RedisKind::MasterNameNotFoundBySentinel => hot("no sentinel knows a master of this name").retryable(),
            RedisKind::ClusterConnectionNotFound => hot("no node of the Redis cluster can be reached").retryable(),
            _ => Error::new(ErrorKind::HotTier, format!("Redis failed: {}", one_line(&error.to_string()))),
        },
    };
    own.caused_by(error)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
