use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::redis::free_port;

const PATIENCE: Duration = Duration::from_secs(60);
/// One answer; a member that is frozen gives none.
const ANSWER: Duration = Duration::from_secs(10);
const SET: &str = "rs";
/// The wire protocol's code of the one kind of message that commands use.
const OP_MSG: i32 = 2013;

/// A MongoDB replica set of one test, whose members may be killed, frozen and held back. It ends with the test.
///
/// Elections take two seconds. Each member knows the server's fail points.
#[derive(Debug)]
pub struct ReplicaSet {
    members: Vec<Member>,
    options: Vec<Document>,
}

/// A server on a free port of loopback, with its data in memory where the machine allows it.
#[derive(Debug)]
struct Member {
    process: Option<Child>,
    port: u16,
    folder: TempDir,
    is_frozen: bool,
}

impl ReplicaSet {
    /// Three members that carry data.
    ///
    /// # Panics
    /// If there is no `mongod`, or no primary is elected.
    pub async fn start() -> Self {
        Self::with_members(vec![Document::new(); 3]).await
    }

    /// Two members that carry data, and an arbiter: one of them away leaves a primary, but no majority that could acknowledge a write.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_arbiter() -> Self {
        Self::with_members(vec![doc! { "priority": 2 }, Document::new(), doc! { "arbiterOnly": true }]).await
    }

    /// A member for each document of options in the set's configuration.
    async fn with_members(options: Vec<Document>) -> Self {
        let members = options.iter().map(|_| Member::new()).collect();
        let mut set = Self { members, options };
        for member in &mut set.members {
            member.spawn();
        }
        for member in &set.members {
            member.until_answering().await;
        }
        let members = set.options.iter().zip(&set.members).enumerate().map(|(at, (options, member))| {
            let mut described = doc! { "_id": i32::try_from(at).expect("a set has few members"), "host": member.address() };
            described.extend(options.clone());
            described
        });
        let members: Vec<Document> = members.collect();
        let settings = doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 200 };
        // What a set with an arbiter has by itself is no majority.
        set.run(0, "admin", doc! { "replSetInitiate": { "_id": SET, "members": members, "settings": settings } }).await;
        set.until_complete().await;
        set
    }

    /// The connection string that names every member.
    #[must_use]
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(Member::address).collect();
        format!("mongodb://{}/?replicaSet={SET}", hosts.join(","))
    }

    /// The index of the primary; waits for an election.
    ///
    /// # Panics
    /// If no member becomes the primary.
    pub async fn primary(&self) -> usize {
        let begun = Instant::now();
        loop {
            for (at, member) in self.members.iter().enumerate() {
                if member.process.is_some()
                    && !member.is_frozen
                    && let Some(hello) = member.ask("admin", doc! { "hello": 1 }).await
                    && hello.get_bool("isWritablePrimary").unwrap_or(false)
                {
                    return at;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no member of the replica set became its primary");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_arbiter(&self, at: usize) -> bool {
        self.options[at].get_bool("arbiterOnly").unwrap_or(false)
    }

    /// The members that carry data and are not at `primary`.
    #[must_use]
    pub fn others(&self, primary: usize) -> Vec<usize> {
        (0..self.members.len()).filter(|at| *at != primary && !self.is_arbiter(*at)).collect()
    }

    /// Waits until there is a primary and every member that runs follows it, so that a majority can acknowledge writes.
    ///
    /// # Panics
    /// If that never comes.
    pub async fn until_complete(&self) {
        let begun = Instant::now();
        loop {
            let primary = self.primary().await;
            let status = self.members[primary].ask("admin", doc! { "replSetGetStatus": 1 }).await.unwrap_or_default();
            let states = status.get_array("members").map(|members| {
                let states = members.iter().filter_map(|member| member.as_document()?.get_str("stateStr").ok());
                states.filter(|state| ["PRIMARY", "SECONDARY", "ARBITER"].contains(state)).count()
            });
            let running = self.members.iter().filter(|member| member.process.is_some() && !member.is_frozen).count();
            if states.is_ok_and(|states| states >= running) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the members of the replica set do not follow its primary: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The answer of the member at `at` to a command.
    ///
    /// # Panics
    /// If it does not answer, or with an error.
    pub async fn run(&self, at: usize, database: &str, command: Document) -> Document {
        let named = command.keys().next().cloned().unwrap_or_default();
        let answer = self.members[at].ask(database, command).await.unwrap_or_else(|| panic!("member {at} does not answer `{named}`"));
        assert!(is_ok(&answer), "member {at} refuses `{named}`: {answer}");
        answer
    }

    /// The documents of a collection as the member at `at` has them, committed or not.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn documents(&self, at: usize, database: &str, collection: &str) -> Vec<Document> {
        let mut answer = self.run(at, database, doc! { "find": collection }).await;
        let mut all = Vec::new();
        loop {
            let cursor = answer.get_document("cursor").expect("a find has a cursor");
            let batch = cursor.get_array("firstBatch").or_else(|_| cursor.get_array("nextBatch")).expect("a cursor has a batch");
            all.extend(batch.iter().filter_map(Bson::as_document).cloned());
            match cursor.get_i64("id") {
                Ok(0) | Err(_) => return all,
                Ok(id) => answer = self.run(at, database, doc! { "getMore": id, "collection": collection }).await,
            }
        }
    }

    /// Makes the primary give up its office, and waits for the next one.
    pub async fn step_down(&self) -> usize {
        let primary = self.primary().await;
        // It may be refused if no other member has caught up in a second; `force` then does it all the same.
        self.members[primary].ask("admin", doc! { "replSetStepDown": 3, "secondaryCatchUpPeriodSecs": 1, "force": true }).await;
        self.primary().await
    }

    /// Holds back replication: what the primary writes from now on reaches no other member.
    pub async fn lag(&self, primary: usize) {
        for at in self.others(primary) {
            self.run(at, "admin", doc! { "configureFailPoint": "stopReplProducer", "mode": "alwaysOn" }).await;
        }
        // A batch that was on its way when the fail points were set still arrives; the next one does not.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// Ends [`lag`](Self::lag).
    pub async fn catch_up(&self) {
        for (at, member) in self.members.iter().enumerate() {
            if member.process.is_some() && !member.is_frozen && !self.is_arbiter(at) {
                self.run(at, "admin", doc! { "configureFailPoint": "stopReplProducer", "mode": "off" }).await;
            }
        }
    }

    /// Stops the member's process without ending it: its connections stay open, and nothing on them is answered.
    pub fn freeze(&mut self, at: usize) {
        self.members[at].signal("STOP");
        self.members[at].is_frozen = true;
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&mut self, at: usize) {
        self.members[at].signal("CONT");
        self.members[at].is_frozen = false;
    }

    /// Ends the member's process at once, as `kill -9` does.
    pub fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// Starts a killed member again, on its port and data.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn restart(&mut self, at: usize) {
        self.members[at].spawn();
        self.members[at].until_answering().await;
    }

    /// Elects another primary while the present one is frozen and the others lack what it wrote since [`lag`](Self::lag); the old one is thawed
    /// by the caller, and then undoes what only it had. Returns the new one.
    pub async fn fail_over_without_the_last_writes(&mut self, primary: usize) -> usize {
        self.freeze(primary);
        let next = self.primary().await;
        self.catch_up().await;
        next
    }
}

impl Member {
    fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { process: None, port: free_port(), folder: folder.expect("there is room for a temporary folder"), is_frozen: false }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn spawn(&mut self) {
        self.kill();
        let mut command = Command::new(program());
        command.args(["--bind_ip", "127.0.0.1", "--port", &self.port.to_string(), "--nounixsocket", "--quiet"]);
        command.args(["--replSet", SET, "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"]);
        command.args(["--setParameter", "diagnosticDataCollectionEnabled=false", "--setParameter", "enableTestCommands=1"]);
        command.arg("--dbpath").arg(self.folder.path()).arg("--logpath").arg(self.folder.path().join("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("mongod can be started"));
    }

    async fn until_answering(&self) {
        let begun = Instant::now();
        while self.ask("admin", doc! { "ping": 1 }).await.is_none() {
            assert!(begun.elapsed() < PATIENCE, "a MongoDB server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One command on a connection of its own; nothing if there is no answer.
    async fn ask(&self, database: &str, mut command: Document) -> Option<Document> {
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

    fn signal(&self, signal: &str) {
        if let Some(process) = &self.process {
            let sent = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()), "a member of the replica set ended by itself");
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a killed child ends");
        }
        self.is_frozen = false;
    }
}

impl Drop for Member {
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
    let on_path =
        std::env::var_os("PATH").and_then(|path| std::env::split_paths(&path).map(|at| at.join("mongod")).find(|at| at.is_file()));
    on_path.or_else(installed).expect("there is a mongod: run `scripts/services up mongo-rs` once")
}

fn installed() -> Option<PathBuf> {
    let cache = std::env::var_os("CHRONOS_SERVICES_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("chronos-services"))
    })?;
    let entries = |folder: PathBuf, prefix: &'static str| {
        let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
        read.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
    };
    let pythons = entries(cache, "mongod-").flat_map(|environment| entries(environment.join("lib"), "python3"));
    pythons.map(|python| python.join("site-packages/fiftyone/db/bin/mongod")).find(|at| at.is_file())
}
