//! Connections for one user at a time.

use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, ErrorKind as RedisKind, RedisResult, ServerErrorKind, Value, cmd};

use super::script::{Args, Script};

/// A connection that nobody else uses meanwhile.
pub(super) struct Own {
    pub(super) connection: MultiplexedConnection,
    /// The node of a cluster that it leads to.
    pub(super) node: Option<(String, u16)>,
    pub(super) timeout: Duration,
}

impl Own {
    pub(super) async fn send(&mut self, cmd: &Cmd, timeout: Duration) -> RedisResult<Value> {
        match tokio::time::timeout(timeout, self.connection.req_packed_command(cmd)).await {
            Ok(reply) => reply?.extract_error(),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    pub(super) async fn is_alive(&mut self) -> bool {
        self.send(&cmd("PING"), self.timeout).await.is_ok()
    }

    pub(super) async fn eval(&mut self, script: &Script, keys: &[String], args: &Args) -> RedisResult<Value> {
        match self.send(&script.by_hash(keys, args), self.timeout).await {
            Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::NoScript) => {
                self.send(&script.by_source(keys, args), self.timeout).await
            }
            other => other,
        }
    }
}
