//! The embedded document store: all databases and collections in one SQLite file, which several processes may use at once.
//!
//! One thread per store writes and commits together whatever is queued; readers have connections of their own and never wait for it. A document is
//! durable when the call that wrote it returns.

mod catalog;
mod place;
#[cfg(test)]
mod plans;
mod read;
mod write;
mod writer;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};

use self::catalog::Session;
use self::place::{Fault, Place, Role};
use self::write::Prepared;
use self::writer::{Done, Request, StoreClock, Work, Writer};
use super::{Batch, BuildBatch, Capabilities, Documents, Index, Namespace, Outcome, Scan, Sequence};
use crate::{Error, Result, Runtime, Timestamp};

/// Connections for reading that are kept while nobody reads.
const IDLE_READERS: usize = 8;

/// Documents and bytes that a scan reads ahead at most, twice: one chunk is on its way while the next is read.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = 1024 * 1024;

/// A document store in a local file, or in memory.
pub struct EmbeddedDocuments {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    runtime: Runtime,
    clock: Arc<StoreClock>,
    closed: AtomicBool,
    engine: OnceCell<Engine>,
}

enum Engine {
    /// One connection for everything, used by the caller's own task: there is nothing to wait for but other callers.
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
    idle: Mutex<Vec<Session>>,
    turns: Semaphore,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Runs `work` on one snapshot.
    fn read<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = locked(&self.idle).pop();
        let mut session = match idle {
            Some(session) => session,
            None => Session::new(place::connect(Some(&self.file), Role::Reader)?),
        };
        // A connection on which anything failed is not used again.
        let done = session.read(work)?;
        let mut idle = locked(&self.idle);
        if idle.len() < IDLE_READERS {
            idle.push(session);
        }
        Ok(done)
    }
}

impl fmt::Debug for EmbeddedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedDocuments").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

impl EmbeddedDocuments {
    /// A store in the folder or `.db` file `path`, or with `:memory:` one that is gone when it is dropped. Nothing is touched before the first call.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the path is empty.
    pub fn open(path: impl AsRef<Path>, runtime: Runtime) -> Result<Self> {
        let place = Place::parse(path.as_ref())?;
        let shared = Shared { place, runtime, clock: Arc::default(), closed: AtomicBool::new(false), engine: OnceCell::new() };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn gone(&self) -> Error {
        Error::database(format!("the embedded store {} is closed", self.place))
    }

    async fn engine(&self) -> Result<&Engine> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.gone());
        }
        self.engine.get_or_try_init(|| self.start()).await
    }

    async fn start(&self) -> Result<Engine> {
        let (place, runtime, clock) = (self.place.clone(), self.runtime.clone(), self.clock.clone());
        let open = move || -> Result<(Option<PathBuf>, Writer)> {
            let file = place.file()?;
            let connection = place::connect(file.as_deref(), Role::Writer).map_err(|fault| fault.into_error(&place, "opening"))?;
            Ok((file, Writer::new(Session::new(connection), place, runtime, clock)))
        };
        if matches!(self.place, Place::Memory) {
            return Ok(Engine::Memory(Box::new(Mutex::new(Some(open()?.1)))));
        }
        let (file, writer) = off_thread(open).await??;
        let (queue, requests) = mpsc::channel(writer::QUEUE);
        let thread = std::thread::Builder::new().name("chronos-writer".to_owned()).spawn(move || writer.run(requests));
        let thread = thread.map_err(|e| Error::database("the writer's thread cannot be started").caused_by(e))?;
        let readers = Readers { file: file.unwrap_or_default(), idle: Mutex::default(), turns: Semaphore::new(IDLE_READERS) };
        Ok(Engine::File(FileEngine { queue, thread: Mutex::new(Some(thread)), readers: Arc::new(readers) }))
    }

    async fn write(&self, work: Work) -> Result<Done> {
        match self.engine().await? {
            Engine::Memory(writer) => locked(writer).as_mut().ok_or_else(|| self.gone())?.commit_one(work),
            Engine::File(engine) => {
                let (reply, answer) = oneshot::channel();
                engine.queue.send(Request { work, reply }).await.map_err(|_| self.gone())?;
                answer.await.map_err(|_| {
                    Error::database(format!(
                        "the writer of the embedded store {} ended; whether the write took place is unknown",
                        self.place
                    ))
                })?
            }
        }
    }

    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&mut Session) -> Result<T, Fault> + Send + 'static) -> Result<T> {
        let done = match self.engine().await? {
            Engine::Memory(writer) => locked(writer).as_mut().ok_or_else(|| self.gone())?.session.read(work),
            Engine::File(engine) => {
                let readers = engine.readers.clone();
                // The semaphore is never closed.
                let _turn = engine.readers.turns.acquire().await.map_err(|_| self.gone())?;
                off_thread(move || readers.read(work)).await?
            }
        };
        done.map_err(|fault| fault.into_error(&self.place, "reading"))
    }

    /// Starts a scan; what it finds comes in chunks, at last an empty one.
    async fn start_scan(&self, namespace: Namespace, scan: Scan) -> Result<mpsc::Receiver<Result<Vec<RawDocumentBuf>>>> {
        read::check(&scan)?;
        let (sender, receiver) = mpsc::channel(1);
        match self.engine().await? {
            Engine::Memory(writer) => {
                // One connection cannot hold a snapshot for a reader and write meanwhile; the documents are in memory anyway.
                let mut found = Vec::new();
                let mut take = |document| {
                    found.push(document);
                    ControlFlow::Continue(())
                };
                let mut writer = locked(writer);
                let session = &mut writer.as_mut().ok_or_else(|| self.gone())?.session;
                let done = session.read(|session| session.scan(&namespace, &scan, &|| true, &mut take));
                done.map_err(|fault| fault.into_error(&self.place, "reading"))?;
                let (sender, receiver) = mpsc::channel(2);
                for chunk in [found, Vec::new()] {
                    // There is room for two.
                    sender.try_send(Ok(chunk)).map_err(|_| Error::database("a scan lost its answer"))?;
                }
                return Ok(receiver);
            }
            Engine::File(engine) => {
                let (readers, place) = (engine.readers.clone(), self.place.clone());
                // Ends when the stream is dropped, as sending then fails.
                tokio::task::spawn_blocking(move || {
                    let done = readers.read(|session| produce(session, &namespace, &scan, &sender));
                    // Nobody listens any more if this cannot be sent.
                    let _ = sender.blocking_send(done.map_err(|fault| fault.into_error(&place, "reading")).map(|()| Vec::new()));
                });
            }
        }
        Ok(receiver)
    }
}

fn produce(session: &mut Session, namespace: &Namespace, scan: &Scan, to: &mpsc::Sender<Result<Vec<RawDocumentBuf>>>) -> Result<(), Fault> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    session.scan(namespace, scan, &|| !to.is_closed(), &mut |document| {
        bytes += document.as_bytes().len();
        chunk.push(document);
        if chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            return ControlFlow::Continue(());
        }
        bytes = 0;
        match to.blocking_send(Ok(std::mem::take(&mut chunk))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if !chunk.is_empty() {
        // Nobody listens any more if this cannot be sent.
        let _ = to.blocking_send(Ok(chunk));
    }
    Ok(())
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::database("the embedded store was interrupted").caused_by(e))
}

#[async_trait]
impl Documents for EmbeddedDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.shared.engine().await?;
        Ok(Capabilities { transactions: true, atomic_sequence: true })
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let batch = Prepared::new(batch)?;
        Ok(self.shared.write(Work::Apply(batch)).await?.outcomes)
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        Ok(self.give_out(namespace, name, count, None).await?.0)
    }

    async fn sequence_then(&self, namespace: &Namespace, name: &str, count: u32, build: BuildBatch) -> Result<(Sequence, Vec<Outcome>)> {
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
        enum Progress {
            Before(Box<(Arc<Shared>, Namespace, Scan)>),
            Within(mpsc::Receiver<Result<Vec<RawDocumentBuf>>>),
            After,
        }
        let before = Progress::Before(Box::new((self.shared.clone(), namespace.clone(), scan)));
        let chunks = stream::unfold(before, |progress| async move {
            let mut receiver = match progress {
                Progress::Before(wanted) => {
                    let (shared, namespace, scan) = *wanted;
                    match shared.start_scan(namespace, scan).await {
                        Ok(receiver) => receiver,
                        Err(error) => return Some((Err(error), Progress::After)),
                    }
                }
                Progress::Within(receiver) => receiver,
                Progress::After => return None,
            };
            match receiver.recv().await {
                Some(Ok(chunk)) if chunk.is_empty() => None,
                Some(Ok(chunk)) => Some((Ok(chunk), Progress::Within(receiver))),
                Some(Err(error)) => Some((Err(error), Progress::After)),
                None => Some((Err(Error::database("a scan ended before its last document")), Progress::After)),
            }
        });
        let documents = chunks.flat_map(|chunk| {
            let (found, failed) = match chunk {
                Ok(found) => (found, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            stream::iter(found.into_iter().map(Ok).chain(failed.map(Err)))
        });
        documents.boxed()
    }

    async fn now(&self) -> Result<Timestamp> {
        self.shared.engine().await?;
        Ok(self.shared.clock.now(&self.shared.runtime))
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

    async fn close(&self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        match self.shared.engine.get() {
            None => Ok(()),
            Some(Engine::Memory(writer)) => {
                locked(writer).take();
                Ok(())
            }
            Some(Engine::File(engine)) => {
                let (reply, _answer) = oneshot::channel();
                // If the writer is gone already, there is nothing to stop.
                let _ = engine.queue.send(Request { work: Work::Stop, reply }).await;
                locked(&engine.readers.idle).clear();
                let thread = locked(&engine.thread).take();
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
    async fn give_out(&self, namespace: &Namespace, name: &str, count: u32, build: Option<BuildBatch>) -> Result<(Sequence, Vec<Outcome>)> {
        if count == 0 {
            return Err(Error::validation("a sequence gives out at least one number"));
        }
        let work = Work::Sequence { namespace: namespace.clone(), name: name.to_owned(), count, build };
        let Done { sequence, outcomes } = self.shared.write(work).await?;
        let sequence = sequence.ok_or_else(|| Error::database("the writer gave out no number"))?;
        Ok((sequence, outcomes))
    }
}
