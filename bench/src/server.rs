//! A Redis server of the bench's own, so that its settings are known, and nobody else is on it.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;

/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(20);

/// What the server writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aof {
    /// Every change, synced once a second.
    Everysec,
    /// Nothing.
    Off,
}

impl Aof {
    /// For a note: no figure of Redis means anything without it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Everysec => "everysec",
            Self::Off => "off",
        }
    }

    /// Behind the name of a scenario.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Everysec => "",
            Self::Off => "_no_aof",
        }
    }
}

/// A server on a free port; ended, and its data removed, with this.
#[derive(Debug)]
pub(crate) struct RedisServer {
    process: Child,
    port: u16,
    aof: Aof,
    version: String,
    _data: TempDir,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl RedisServer {
    /// Starts one whose data lies in a folder in `dir`.
    pub(crate) async fn start(dir: &Path, aof: Aof) -> Result<Self> {
        let data = tempfile::tempdir_in(dir)?;
        // Nobody else takes it in the moment in between, as good as ever.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = program()?;
        let process = command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(data.path())
            .args(["--save", "", "--loglevel", "warning", "--appendfsync", "everysec"])
            .args(["--appendonly", if aof == Aof::Off { "no" } else { "yes" }])
            // A rewrite in the middle of a round would be measured as ours or as the ceiling's.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut server = Self { process, port, aof, version: String::new(), _data: data };
        let begun = Instant::now();
        server.version = loop {
            match server.ask_version().await {
                Ok(version) => break version,
                Err(failure) if begun.elapsed() > START => return Err(failure),
                // The server does not notify; it has to be asked again.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Ok(server)
    }

    async fn ask_version(&self) -> Result<String> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let info: redis::InfoDict = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        info.get("redis_version").ok_or_else(|| "the server does not say what it is".into())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn aof(&self) -> Aof {
        self.aof
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// `redis-server`; or Debian's `redis-check-rdb`, which is the same program and becomes it when it is called
/// so.
fn program() -> Result<Command> {
    if let Some(server) = on_path("redis-server") {
        return Ok(Command::new(server));
    }
    let same = on_path("redis-check-rdb")
        .ok_or("there is no redis-server on PATH; `scripts/services up redis` installs one")?;
    let mut command = Command::new(same);
    command.arg0("redis-server");
    Ok(command)
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
