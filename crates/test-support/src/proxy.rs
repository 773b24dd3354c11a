use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A network between client and server that a test can cut, stall and restore.
///
/// Clients connect to [`address`](Self::address), or use [`uri`](Self::uri). The driver of MongoDB goes
/// around it to the members a replica set names, unless the URI says `directConnection=true`. Dropping the
/// proxy closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    upstream_uri: String,
    upstream: String,
    /// Where new connections lead.
    target: watch::Sender<String>,
    line: watch::Sender<Line>,
    open: watch::Receiver<usize>,
    passed: Arc<Passed>,
    /// The connections belong to this task and end with it.
    _task: AbortOnDropHandle<()>,
}

/// What went through.
#[derive(Debug, Default)]
struct Passed {
    requests: AtomicU64,
    answered: AtomicU64,
}

/// Tells requests of one HTTP connection apart: a body may hold what looks like another one.
#[derive(Debug, Default)]
struct Requests {
    head: Vec<u8>,
    body_left: usize,
}

impl Requests {
    /// How many begin in these bytes.
    fn begun(&mut self, mut bytes: &[u8]) -> u64 {
        const END: &[u8] = b"\r\n\r\n";
        let mut begun = 0;
        while !bytes.is_empty() {
            let of_body = self.body_left.min(bytes.len());
            self.body_left -= of_body;
            bytes = &bytes[of_body..];
            let Some((first, rest)) = bytes.split_first() else { break };
            begun += u64::from(self.head.is_empty());
            self.head.push(*first);
            bytes = rest;
            if self.head.ends_with(END) {
                let head = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                self.body_left = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
                self.head.clear();
            }
        }
        begun
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Delay(Duration),
    /// Nothing gets through, in neither direction.
    Stall,
    /// Requests get through, answers don't.
    Mute,
    Cut,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    mode: Mode,
    /// Connections of an earlier age are closed.
    age: u64,
}

impl Proxy {
    /// A proxy on a free port of loopback in front of the server at `uri`, which is `host:port` or a URL with
    /// such.
    ///
    /// # Panics
    /// If the URI has no port or loopback has none left.
    pub async fn in_front_of(uri: &str) -> Self {
        let upstream = authority(uri).to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there is a free port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let line = watch::Sender::new(Line { mode: Mode::Pass, age: 0 });
        let (count, open) = watch::channel(0);
        let target = watch::Sender::new(upstream.clone());
        let passed = Arc::<Passed>::default();
        let accepting =
            tokio::spawn(accept(listener, target.subscribe(), line.clone(), count, Arc::clone(&passed)));
        let _task = AbortOnDropHandle::new(accepting);
        Self { address, upstream_uri: uri.to_owned(), upstream, target, line, open, passed, _task }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's URI with this proxy in its place.
    #[must_use]
    pub fn uri(&self) -> String {
        self.upstream_uri.replacen(&self.upstream, &self.address.to_string(), 1)
    }

    /// How many connections are open at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.open.borrow()
    }

    /// How many HTTP requests went through, and how many bytes of answers.
    #[must_use]
    pub fn passed(&self) -> (u64, u64) {
        (self.passed.requests.load(Ordering::SeqCst), self.passed.answered.load(Ordering::SeqCst))
    }

    /// Closes every connection, and every new one at once, until [`restore`](Self::restore).
    pub fn cut(&self) {
        self.line.send_modify(|line| *line = Line { mode: Mode::Cut, age: line.age + 1 });
    }

    /// Closes the present connections; new ones work.
    pub fn drop_connections(&self) {
        self.line.send_modify(|line| line.age += 1);
    }

    /// Leads new connections to the server at another URI, as a name does after a failover; those that are
    /// open stay where they are.
    pub fn lead_to(&self, uri: &str) {
        self.target.send_replace(authority(uri).to_owned());
    }

    /// Holds back everything that is sent from now on, in both directions, until [`restore`](Self::restore).
    /// Connections stay open.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// Lets requests through and holds back the answers, until [`restore`](Self::restore): followed by
    /// [`cut`](Self::cut) the client doesn't know whether its request took place.
    pub fn mute(&self) {
        self.set(Mode::Mute);
    }

    /// Delays every piece of data by this much real time, in both directions, until
    /// [`restore`](Self::restore).
    pub fn delay(&self, by: Duration) {
        self.set(Mode::Delay(by));
    }

    /// Ends what the others began; what was held back is sent.
    pub fn restore(&self) {
        self.set(Mode::Pass);
    }

    fn set(&self, mode: Mode) {
        self.line.send_modify(|line| line.mode = mode);
    }
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<String>,
    line: watch::Sender<Line>,
    count: watch::Sender<usize>,
    passed: Arc<Passed>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A closed connection is not an error here: it is what tests ask for.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // Such as a client that went away again before it was accepted.
                let Ok((client, _)) = accepted else { continue };
                let upstream = target.borrow().clone();
                connections.spawn(serve(client, upstream, line.subscribe(), Arc::clone(&passed)));
            }
        }
        count.send_replace(connections.len());
    }
}

async fn serve(
    client: TcpStream,
    upstream: String,
    mut line: watch::Receiver<Line>,
    passed: Arc<Passed>,
) -> io::Result<()> {
    let Line { mode, age } = *line.borrow_and_update();
    if mode == Mode::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(&upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let requests = pump(from_client, to_server, line.clone(), age, (&passed, false));
    let answers = pump(from_server, to_client, line.clone(), age, (&passed, true));
    tokio::select! {
        result = async { tokio::try_join!(requests, answers) } => result.map(|_| ()),
        // Fails only if the proxy is gone, which closes the connection as well.
        _ = line.wait_for(|line| line.age != age) => Ok(()),
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    age: u64,
    (passed, answers): (&Passed, bool),
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut requests = Requests::default();
    loop {
        let length = from.read(&mut buffer).await?;
        let held = |mode| mode == Mode::Stall || (answers && mode == Mode::Mute);
        let now =
            *line.wait_for(|line| line.age != age || !held(line.mode)).await.map_err(io::Error::other)?;
        // What was held back when the line was cut is lost, also if it was restored since.
        if now.age != age {
            return Ok(());
        }
        if let Mode::Delay(by) = now.mode {
            tokio::time::sleep(by).await;
        }
        if length == 0 {
            return to.shutdown().await;
        }
        if answers {
            passed.answered.fetch_add(length as u64, Ordering::SeqCst);
        } else {
            passed.requests.fetch_add(requests.begun(&buffer[..length]), Ordering::SeqCst);
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// `host:port` of a URI.
fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    assert!(port.is_some(), "`{uri}` names no port");
    host
}
