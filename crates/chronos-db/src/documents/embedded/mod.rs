//! The embedded document store: all databases and collections in one SQLite file, which several processes may
//! use at once.
//!
//! One thread per store writes and commits together whatever is queued; readers have connections of their own
//! and never wait for it. A document is durable when the call that wrote it returns.
//!
//! `location.rs` finds the file, `connection.rs` opens it, `catalog.rs` and `layout.rs` know which table
//! holds a collection, `query.rs` and `read.rs` scan, `write.rs` applies a batch and `writer.rs` is the
//! thread that commits. `rusqlite` is used in this folder alone; `docs/format.md` describes the file.

mod catalog;
mod connection;
mod error;
mod layout;
mod location;
#[cfg(test)]
mod plans;
mod query;
mod read;
mod sql_functions;
mod steps;
mod write;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};

use self::catalog::Session;
use self::connection::Role;
use self::error::SqliteError;
use self::location::Location;
pub use self::steps::Steps;
use self::write::Prepared;
use self::writer::{CommitOutcome, Request, StoreClock, Work, Writer};
use super::paging::{self, Ask, Page, Pages, Position};
use super::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Filter, Index, Namespace, Numbered, Outcome,
    Scan, Sequence,
};
use crate::{Env, Error, Result, Timestamp};

/// Connections for reading that are kept while nobody reads.
const IDLE_READERS: usize = 8;

/// A document store in a local file, or in memory.
pub struct EmbeddedDocuments {
    shared: Arc<Shared>,
}

struct Shared {
    location: Location,
    env: Env,
    clock: Arc<StoreClock>,
    steps: Arc<Steps>,
    closed: AtomicBool,
    engine: OnceCell<Engine>,
}

enum Engine {
    /// One connection for everything, used by the caller's own task: there is nothing to wait for but other
    /// callers.
    Memory(Box<Mutex<Option<Writer>>>),
    File(FileEngine),
}

struct FileEngine {
    queue: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
}

/// Connections for reading. Reads by `_id` take turns; a scan, which may last, never waits for one.
struct Readers {
    file: PathBuf,
    steps: Arc<Steps>,
    idle: Mutex<Vec<Session>>,
    turns: Semaphore,
}

impl Readers {
    /// Runs `work` on one snapshot.
    fn read<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, SqliteError>) -> Result<T, SqliteError> {
        let idle = self.idle.lock().pop();
        let mut session = match idle {
            Some(session) => session,
            None => Session::new(connection::connect(Some(&self.file), Role::Reader)?, &self.steps),
        };
        // A connection on which anything failed is not used again.
        let done = session.read(work)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_READERS {
            idle.push(session);
        }
        Ok(done)
    }
}

impl fmt::Debug for EmbeddedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedDocuments").field("location", &self.shared.location).finish_non_exhaustive()
    }
}

impl EmbeddedDocuments {
    /// Opens a store in the folder or `.db` file `path`, or with `:memory:` one that is gone when it is
    /// dropped. Nothing is touched before the first call.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the path is empty.
    pub fn open(path: impl AsRef<Path>, env: Env) -> Result<Self> {
        Self::counting(path, env, Arc::default())
    }

    /// Opens a store, and counts the steps that SQLite takes for it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub fn observed(path: impl AsRef<Path>, env: Env) -> Result<(Self, Arc<Steps>)> {
        let steps = Arc::<Steps>::default();
        Ok((Self::counting(path, env, Arc::clone(&steps))?, steps))
    }

    fn counting(path: impl AsRef<Path>, env: Env, steps: Arc<Steps>) -> Result<Self> {
        let location = Location::parse(path.as_ref())?;
        let clock = Arc::default();
        let shared =
            Shared { location, env, clock, steps, closed: AtomicBool::new(false), engine: OnceCell::new() };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn gone(&self) -> Error {
        Error::database(format!("the embedded store {} is closed", self.location))
    }

    async fn engine(&self) -> Result<&Engine> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.gone());
        }
        let engine = self.engine.get_or_try_init(|| self.start()).await?;
        if matches!(engine, Engine::Memory(_)) {
            // Nothing here ever waits, so a task that asks on and on would let no other one run.
            tokio::task::coop::consume_budget().await;
        }
        Ok(engine)
    }

    async fn start(&self) -> Result<Engine> {
        let (location, env, clock) = (self.location.clone(), self.env.clone(), self.clock.clone());
        let steps = Arc::clone(&self.steps);
        let open = move || -> Result<(Option<PathBuf>, Writer)> {
            let file = location.file()?;
            let connection = connection::connect(file.as_deref(), Role::Writer)
                .map_err(|error| error.into_error(&location, "opening"))?;
            Ok((file, Writer::new(Session::new(connection, &steps), location, env, clock)))
        };
        if matches!(self.location, Location::Memory) {
            return Ok(Engine::Memory(Box::new(Mutex::new(Some(open()?.1)))));
        }
        let (file, writer) = off_thread(open).await??;
        let (queue, requests) = mpsc::channel(writer::QUEUE);
        let thread =
            std::thread::Builder::new().name("chronos-writer".to_owned()).spawn(move || writer.run(requests));
        let thread =
            thread.map_err(|e| Error::database("the writer's thread cannot be started").caused_by(e))?;
        let (file, steps) = (file.unwrap_or_default(), Arc::clone(&self.steps));
        let readers = Readers { file, steps, idle: Mutex::default(), turns: Semaphore::new(IDLE_READERS) };
        Ok(Engine::File(FileEngine { queue, thread: Mutex::new(Some(thread)), readers: Arc::new(readers) }))
    }

    async fn write(&self, work: Work) -> Result<CommitOutcome> {
        match self.engine().await? {
            Engine::Memory(writer) => writer.lock().as_mut().ok_or_else(|| self.gone())?.commit_one(work),
            Engine::File(engine) => {
                let (reply, answer) = oneshot::channel();
                engine.queue.send(Request { work, reply }).await.map_err(|_| self.gone())?;
                answer.await.map_err(|_| {
                    Error::database(format!(
                        "the writer of the embedded store {} ended; whether the write took place is unknown",
                        self.location
                    ))
                })?
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T> {
        let done = match self.engine().await? {
            Engine::Memory(writer) => writer.lock().as_mut().ok_or_else(|| self.gone())?.session.read(work),
            Engine::File(engine) => {
                let readers = engine.readers.clone();
                // The semaphore is never closed.
                let _turn = engine.readers.turns.acquire().await.map_err(|_| self.gone())?;
                off_thread(move || readers.read(work)).await?
            }
        };
        done.map_err(|error| error.into_error(&self.location, "reading"))
    }

    /// Runs a part of a scan. It waits for no turn, so that no number of scans keeps a read by `_id` from
    /// going on.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session, &dyn Fn() -> bool) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T> {
        let done = match self.engine().await? {
            Engine::Memory(writer) => writer
                .lock()
                .as_mut()
                .ok_or_else(|| self.gone())?
                .session
                .read(|session| work(session, &|| true)),
            Engine::File(engine) => {
                let readers = engine.readers.clone();
                // Dropped with the caller, who then waits for nothing any more.
                let (listener, listening) = oneshot::channel::<()>();
                let done =
                    off_thread(move || readers.read(|session| work(session, &|| !listener.is_closed())))
                        .await;
                drop(listening);
                done?
            }
        };
        done.map_err(|error| error.into_error(&self.location, "reading"))
    }
}

/// The scans of one collection.
struct Scans {
    shared: Arc<Shared>,
    namespace: Namespace,
}

#[async_trait]
impl Pages for Scans {
    async fn page(&self, ask: Ask) -> Result<Page<RawDocumentBuf>> {
        let namespace = self.namespace.clone();
        self.shared.look(move |session, listening| session.page(&namespace, &ask, listening)).await
    }

    async fn positions(&self, ask: Ask) -> Result<Page<Position>> {
        let namespace = self.namespace.clone();
        self.shared.look(move |session, listening| session.positions(&namespace, &ask, listening)).await
    }

    async fn follows_index(&self, scan: &Scan) -> Result<bool> {
        let (namespace, scan) = (self.namespace.clone(), scan.clone());
        self.shared.look(move |session, _| session.follows_index(&namespace, &scan)).await
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::database("the embedded store was interrupted").caused_by(e))
}

#[async_trait]
impl DocumentStore for EmbeddedDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.shared.engine().await?;
        Ok(Capabilities { transactions: true, atomic_sequence: true })
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let batch = Prepared::new(batch)?;
        Ok(self.shared.write(Work::Apply(batch)).await?.outcomes)
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        Ok(self.give_out(namespace, name, count, None).await?.sequence)
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.give_out(namespace, name, count, Some(build)).await
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        let namespace = namespace.clone();
        let mut ids = ids.iter().map(write::encode_id).collect::<Result<Vec<_>>>()?;
        ids.sort();
        ids.dedup();
        self.shared.read(move |session| session.get(&namespace, &ids)).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        paging::stream(Scans { shared: self.shared.clone(), namespace: namespace.clone() }, scan)
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let namespace = namespace.clone();
        self.shared.read(move |session| session.count(&namespace, &filter, at_most)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.shared.engine().await?;
        Ok(self.shared.clock.now(&self.shared.env))
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        let (at, wanted) = (namespace.clone(), indexes.to_vec());
        // The usual case: everything is there, and no writer need be troubled.
        if self.shared.read(move |session| session.has_indexes(&at, &wanted)).await? {
            return Ok(());
        }
        let work = Work::Ensure { namespace: namespace.clone(), indexes: indexes.to_vec() };
        self.shared.write(work).await.map(drop).map_err(|error| error.in_collection(&namespace.collection))
    }

    async fn deployment(&self) -> Result<Deployment> {
        if matches!(self.shared.location, Location::Memory) {
            // Nobody else has this memory.
            return Ok(Deployment::of([format!("memory {:p}", Arc::as_ptr(&self.shared))]));
        }
        let location = self.shared.location.clone();
        Ok(Deployment::of(off_thread(move || location.marks()).await??))
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.shared.read(|session| session.databases()).await
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        let database = database.to_owned();
        self.shared.read(move |session| session.collections(&database)).await
    }

    /// The bytes of what goes are overwritten as it goes (`secure_delete`); what is left of them is in the
    /// write-ahead log, which is emptied here, and where SQLite has moved them from, see `scrub`.
    async fn purge(&self, _database: &str) -> Result<()> {
        if matches!(self.shared.location, Location::Memory) {
            return Ok(());
        }
        self.shared.write(Work::Purge).await.map(drop)
    }

    /// To balance a tree SQLite moves rows between pages, and does not overwrite what it leaves in the unused
    /// middle of a page, whatever `secure_delete` says. A file that is written anew has nothing there.
    async fn scrub(&self, _database: &str) -> Result<()> {
        if matches!(self.shared.location, Location::Memory) {
            return Ok(());
        }
        self.shared.write(Work::Scrub).await.map(drop)
    }

    async fn close(&self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match self.shared.engine.get() {
            None => Ok(()),
            Some(Engine::Memory(writer)) => {
                writer.lock().take();
                Ok(())
            }
            Some(Engine::File(engine)) => {
                let (reply, _answer) = oneshot::channel();
                // If the writer is gone already, there is nothing to stop.
                let _ = engine.queue.send(Request { work: Work::Stop, reply }).await;
                engine.readers.idle.lock().clear();
                let thread = engine.thread.lock().take();
                let joined = off_thread(move || thread.map(JoinHandle::join)).await?;
                match joined {
                    Some(Err(_)) => Err(Error::database("the writer of the embedded store panicked")),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl EmbeddedDocuments {
    async fn give_out(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: Option<BuildBatch>,
    ) -> Result<Numbered> {
        if count == 0 {
            return Err(Error::validation("a sequence gives out at least one number"));
        }
        let work = Work::Sequence { namespace: namespace.clone(), name: name.to_owned(), count, build };
        let CommitOutcome { sequence, outcomes } = self.shared.write(work).await?;
        let sequence = sequence.ok_or_else(|| Error::database("the writer gave out no number"))?;
        Ok(Numbered { sequence, outcomes })
    }
}
