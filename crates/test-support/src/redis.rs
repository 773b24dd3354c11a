use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(60);
/// All slots of a cluster.
const SLOTS: usize = 16_384;

/// A Redis server of one test, on a free port; it ends with it. It may be killed and started again on its
/// data.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Child>,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// A server that keeps nothing on disk unless the arguments say so.
    ///
    /// # Panics
    /// If there is no `redis-server`, or it does not answer.
    pub async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let mut all =
            ["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""].map(str::to_owned).to_vec();
        all.extend(["--dir".to_owned(), folder.path().display().to_string()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self::begin(port, folder, all).await
    }

    /// A server that has written every change to disk before it answers.
    pub async fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// A sentinel that watches the server at this port of loopback as the master `main`, and replaces it on
    /// `SENTINEL FAILOVER` alone: a server that is only slow, on a busy machine, must not look down.
    pub async fn sentinel(master: u16) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {master} 1\nsentinel down-after-milliseconds main 60000\n\
             sentinel failover-timeout main 60000\n"
        );
        std::fs::write(&file, text).expect("the temporary folder can be written");
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        Self::begin(port, folder, arguments).await
    }

    async fn begin(port: u16, folder: TempDir, arguments: Vec<String>) -> Self {
        let mut server = Self { process: None, port, folder, arguments };
        server.restart().await;
        server
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a killed child ends");
        }
    }

    /// Starts it again after a [`kill`](Self::kill), on the same port and data, and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(program());
        command
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().expect("redis-server can be started"));
        let begun = Instant::now();
        // While it loads its data it says so, and a password is asked for: both are answers, but only the
        // latter is one to go on with.
        while self.try_run(&["PING"]).await.is_none_or(|answer| answer.contains("LOADING")) {
            assert!(begun.elapsed() < TIMEOUT, "a Redis server did not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it answers to a command, an item a line; errors too, as text.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn run(&self, words: &[&str]) -> String {
        self.try_run(words).await.expect("the Redis server answers")
    }

    async fn try_run(&self, words: &[&str]) -> Option<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await.ok()?);
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).await.ok()?;
        let (mut lines, mut left) = (Vec::new(), 1_i64);
        while left > 0 {
            left -= 1;
            let mut head = String::new();
            stream.read_line(&mut head).await.ok().filter(|read| *read > 0)?;
            let (kind, rest) = head.trim_end().split_at(1);
            match kind {
                "*" => left += rest.parse::<i64>().ok()?.max(0),
                "$" if rest != "-1" => {
                    let mut text = vec![0; rest.parse::<usize>().ok()? + 2];
                    stream.read_exact(&mut text).await.ok()?;
                    lines.push(String::from_utf8_lossy(&text).trim_end().to_owned());
                }
                _ => lines.push(rest.to_owned()),
            }
        }
        Some(lines.join("\n"))
    }

    /// Waits until this replica has everything its master has now. (`WAIT` knows only of what its own
    /// connection wrote.)
    ///
    /// # Panics
    /// If that never comes.
    pub async fn has_all_of(&self, master: &Self) {
        let offset = |answer: &str, name: &str| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        let written = offset(&master.run(&["INFO", "replication"]).await, "master_repl_offset")
            .expect("a master says how much it wrote");
        self.until("the replica has everything", &["INFO", "replication"], |answer| {
            offset(answer, "slave_repl_offset").is_some_and(|read| read >= written)
        })
        .await;
    }

    /// Asks until the answer is such a one. A server that changes its role drops its connections, so one
    /// without an answer is asked again.
    ///
    /// # Panics
    /// If that never comes.
    pub async fn until(&self, what: &str, words: &[&str], holds: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let answer = self.try_run(words).await;
            if answer.as_deref().is_some_and(&holds) {
                return;
            }
            assert!(begun.elapsed() < TIMEOUT, "waited in vain: {what}; the last answer was {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Redis cluster of one test: some masters, each with one replica.
#[derive(Debug)]
pub struct RedisCluster {
    masters: Vec<RedisServer>,
    replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// This many masters with this many replicas each (0 or 1). A failover needs three masters, so that two can
    /// vote.
    ///
    /// # Panics
    /// If they do not find together.
    pub async fn start(masters: usize, replicas: usize, arguments: &[&str]) -> Self {
        // A node that is only slow, on a busy machine, must not look down: nothing here waits for that.
        let mut all = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "5000",
            "--repl-diskless-sync-delay",
            "0",
        ];
        all.extend(arguments);
        let node = || RedisServer::start(&all);
        let cluster = Self {
            masters: futures::future::join_all((0..masters).map(|_| node())).await,
            replicas: futures::future::join_all((0..masters * replicas).map(|_| node())).await,
        };
        let count = cluster.masters.len();
        for (index, master) in cluster.masters.iter().enumerate() {
            let slots: Vec<String> =
                (SLOTS * index / count..SLOTS * (index + 1) / count).map(|slot| slot.to_string()).collect();
            let words: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            assert_eq!(master.run(&words).await, "OK");
            assert_eq!(master.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await, "OK");
        }
        // All of them, so that nobody depends on what others tell.
        for (index, node) in cluster.nodes().enumerate() {
            for other in cluster.nodes().take(index) {
                assert_eq!(node.run(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]).await, "OK");
            }
        }
        let size = cluster.nodes().count();
        for node in cluster.nodes() {
            node.until("everybody knows everybody", &["CLUSTER", "NODES"], |answer| {
                answer.lines().filter(|line| !line.contains("handshake")).count() == size
            })
            .await;
        }
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            let id = master.run(&["CLUSTER", "MYID"]).await;
            replica.until("it is a replica", &["CLUSTER", "REPLICATE", &id], |answer| answer == "OK").await;
            replica
                .until("it follows its master", &["INFO", "replication"], |answer| {
                    answer.contains("master_link_status:up")
                })
                .await;
        }
        cluster.is_whole().await;
        cluster
    }

    fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas).filter(|node| node.process.is_some())
    }

    /// Every node that lives sees a whole cluster, with as many replicas as there are: masters vote for those
    /// they know.
    async fn is_whole(&self) {
        let replicas = self.nodes().count() - self.masters.len();
        for node in self.nodes() {
            node.until("the cluster is whole", &["CLUSTER", "INFO"], |answer| {
                answer.contains("cluster_state:ok")
            })
            .await;
            let known =
                |answer: &str| answer.lines().filter(|line| line.contains("slave")).count() >= replicas;
            node.until("the replicas are known", &["CLUSTER", "NODES"], known).await;
        }
    }

    /// `host:port` of every node.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes().map(RedisServer::address).collect()
    }

    /// One of the first masters.
    #[must_use]
    pub fn master(&self, index: usize) -> &RedisServer {
        &self.masters[index]
    }

    /// Makes the replica of one of the first masters the master, in good order.
    pub async fn hand_over(&self, index: usize) {
        let replica = &self.replicas[index];
        replica.until("the failover begins", &["CLUSTER", "FAILOVER"], |answer| answer == "OK").await;
        replica.until("it is the master", &["ROLE"], |answer| answer.starts_with("master")).await;
        self.is_whole().await;
    }

    /// Kills one of the first masters when its replica has everything, makes the replica the master, and
    /// waits until every node knows it. Nobody may write meanwhile.
    pub async fn fail_over(&mut self, index: usize) {
        self.replicas[index].has_all_of(&self.masters[index]).await;
        self.masters[index].kill();
        let replica = &self.replicas[index];
        // Without waiting until the others have noticed: how long that takes is a matter of how busy the
        // machine is.
        assert_eq!(replica.run(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await, "OK");
        let id = replica.run(&["CLUSTER", "MYID"]).await;
        let is_master =
            |answer: &str| answer.lines().any(|line| line.starts_with(&id) && line.contains("master"));
        for node in self.nodes() {
            node.until("it is the master", &["CLUSTER", "NODES"], is_master).await;
            node.until("the cluster is whole", &["CLUSTER", "INFO"], |answer| {
                answer.contains("cluster_state:ok")
            })
            .await;
        }
    }
}

/// As `scripts/services` finds it.
fn program() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("CHRONOS_SERVICES_CACHE").unwrap_or_else(|| {
        let base = set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache"));
        base.join("chronos-services")
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("redis-server"))
        .chain([cache.join("redis/redis-server")])
        .find(|file| file.exists())
        .expect("there is no redis-server: run `scripts/services up redis` once")
}

/// Below the ports that outgoing connections get, so that none of these takes it when the server is down; so
/// is the one 10000 above it, which is free, too: there nodes of a cluster listen for each other. No two
/// calls in a process give the same port.
///
/// # Panics
/// If loopback has no such port.
#[must_use]
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    // A server takes its port some time after it was chosen, and again after it was down.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let port = (0_u32..1_000)
        .map(|turn| 12_000 + u16::try_from(RandomState::new().hash_one(turn) % 10_000).unwrap_or(0))
        .find(|port| !given.contains(port) && free(*port) && free(port + 10_000))
        .expect("loopback has a free port");
    given.insert(port);
    port
}
