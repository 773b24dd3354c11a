use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::redis::free_port;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// One answer; a server that is frozen gives none.
const ANSWER: Duration = Duration::from_secs(10);
/// The wire protocol's code of the one kind of message that commands use.
const OP_MSG: i32 = 2013;

/// A MongoDB server on a free port of loopback, with its data in memory where the machine allows it.
#[derive(Debug)]
pub(crate) struct Mongod {
    pub(crate) process: Option<Child>,
    port: u16,
    folder: Option<TempDir>,
    pub(crate) is_frozen: bool,
}

impl Mongod {
    pub(crate) fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = Some(folder.expect("there is room for a temporary folder"));
        Self { process: None, port: free_port(), folder, is_frozen: false }
    }

    /// One that another process has started, and ends.
    pub(crate) fn of_others(port: u16) -> Self {
        Self { process: None, port, folder: None, is_frozen: false }
    }

    /// Whether it can answer.
    pub(crate) fn is_up(&self) -> bool {
        (self.process.is_some() || self.folder.is_none()) && !self.is_frozen
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Begins with arguments beside those that every server here has.
    pub(crate) fn spawn(&mut self, arguments: &[&str]) {
        self.kill();
        let mut command = Command::new(program());
        command.args([
            "--bind_ip",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--nounixsocket",
            "--quiet",
        ]);
        command.args(["--wiredTigerCacheSizeGB", "0.25"]).args(arguments);
        command.args([
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
            "--setParameter",
            "enableTestCommands=1",
        ]);
        let folder = self.folder.as_ref().expect("a server of others is not started here").path();
        command.arg("--dbpath").arg(folder).arg("--logpath").arg(folder.join("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("mongod can be started"));
    }

    pub(crate) async fn until_answering(&self) {
        let begun = Instant::now();
        while self.ask("admin", doc! { "ping": 1 }).await.is_none() {
            assert!(begun.elapsed() < TIMEOUT, "a MongoDB server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One command on a connection of its own; nothing if there is no answer.
    pub(crate) async fn ask(&self, database: &str, mut command: Document) -> Option<Document> {
        command.insert("$db", database);
        let answer = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let body = bson::serialize_to_vec(&command).ok()?;
            let length = i32::try_from(16 + 5 + body.len()).ok()?;
            let mut message = Vec::new();
            for header in [length, 1, 0, OP_MSG, 0] {
                message.extend(header.to_le_bytes());
            }
            // One section, of the kind that is a document.
            message.push(0);
            message.extend(body);
            stream.write_all(&message).await.ok()?;
            let mut header = [0; 21];
            stream.read_exact(&mut header).await.ok()?;
            let length = i32::from_le_bytes(header[..4].try_into().ok()?);
            let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(header.len())?];
            stream.read_exact(&mut body).await.ok()?;
            bson::deserialize_from_slice(&body).ok()
        };
        tokio::time::timeout(ANSWER, answer).await.ok().flatten()
    }

    /// The answer to a command, which must not be an error.
    pub(crate) async fn run(&self, database: &str, command: Document) -> Document {
        let (named, port) = (command.keys().next().cloned().unwrap_or_default(), self.port);
        let answer = self
            .ask(database, command)
            .await
            .unwrap_or_else(|| panic!("the server at {port} does not answer `{named}`"));
        assert!(is_ok(&answer), "the server at {port} refuses `{named}`: {answer}");
        answer
    }

    /// The documents of a collection, committed or not.
    pub(crate) async fn documents(&self, database: &str, collection: &str) -> Vec<Document> {
        let mut answer = self.run(database, doc! { "find": collection }).await;
        let mut all = Vec::new();
        loop {
            let cursor = answer.get_document("cursor").expect("a find has a cursor");
            let batch = cursor
                .get_array("firstBatch")
                .or_else(|_| cursor.get_array("nextBatch"))
                .expect("a cursor has a batch");
            all.extend(batch.iter().filter_map(Bson::as_document).cloned());
            match cursor.get_i64("id") {
                Ok(0) | Err(_) => return all,
                Ok(id) => answer = self.run(database, doc! { "getMore": id, "collection": collection }).await,
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        if let Some(process) = &self.process {
            let sent = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()), "a MongoDB server ended by itself");
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a killed child ends");
        }
        self.is_frozen = false;
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_ok(answer: &Document) -> bool {
    match answer.get("ok") {
        Some(Bson::Double(ok)) => *ok == 1.0,
        Some(Bson::Int32(ok)) => *ok == 1,
        _ => false,
    }
}

/// The `mongod` on the path, else the one that `scripts/services` installed.
fn program() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|at| at.join("mongod")).find(|at| at.is_file()));
    on_path.or_else(installed).expect("there is a mongod: run `scripts/services up mongo-rs` once")
}

fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("CHRONOS_SERVICES_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(
            base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?
                .join("chronos-services"),
        )
    })?;
    let entries = |folder: PathBuf, prefix: &'static str| {
        let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
        read.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path())
    };
    let pythons =
        entries(cache, "mongod-").flat_map(|environment| entries(environment.join("lib"), "python3"));
    pythons.map(|python| python.join("site-packages/fiftyone/db/bin/mongod")).find(|at| at.is_file())
}
