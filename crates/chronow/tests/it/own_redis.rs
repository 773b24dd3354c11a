//! Redis servers of one test alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
pub(crate) struct OwnRedis {
    process: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

/// The one on the path, else the one that `scripts/services` has installed.
fn program() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = || variable("XDG_CACHE_HOME").unwrap_or_else(|| variable("HOME").unwrap().join(".cache")).join("chronos-services");
    let installed = variable("CHRONOS_SERVICES_CACHE").unwrap_or_else(base).join("redis/redis-server");
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("redis-server")).chain([installed]);
    found.find(|file| file.exists()).expect("there is no redis-server: run `scripts/services up redis` once")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl OwnRedis {
    /// On a free port that clients reach in the clear.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        Self::run(tempfile::tempdir().unwrap(), port, &[&["--port", &port.to_string()], arguments].concat()).await
    }

    /// On a free port that speaks TLS only, with the files `server.pem` and `server.key` of the folder.
    pub(crate) async fn start_tls(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let port = free_port();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key, authority) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let tls =
            ["--port", "0", "--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key].map(str::to_owned);
        let more = ["--tls-ca-cert-file", &authority, "--tls-auth-clients", "no"].map(str::to_owned);
        let all: Vec<&str> = tls.iter().chain(&more).map(String::as_str).chain(arguments.iter().copied()).collect();
        Self::run(folder, port, &all).await
    }

    async fn run(folder: tempfile::TempDir, port: u16, arguments: &[&str]) -> Self {
        let process = Command::new(program())
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port, folder };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "a server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `INFO` says of a section.
    pub(crate) async fn info(&self, section: &str) -> String {
        let mut connection = ::redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        ::redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap()
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It may have been ended by the test.
        drop(self.process.kill());
        self.process.wait().unwrap();
    }
}
