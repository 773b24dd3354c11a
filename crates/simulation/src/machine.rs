//! Starting a process: an engine of its own over the stores that all share.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::{Config, Database, SpaceConnection};
use chronos_db::documents::DocumentStore;
use chronos_db::objects::ObjectStorage;
use chronos_db::{Chronos, Collection, Env, Result, Route};

use crate::documents::SimulatedDocuments;
use crate::objects::SimulatedObjects;
use crate::process::{Process, ProcessClock};
use crate::world::World;

/// The database that all write.
pub(crate) const DATABASE: &str = "sim";
/// The collection that all write.
pub(crate) const COLLECTION: &str = "things";
/// Payloads beyond this size are stored before their commit.
const INLINE_BYTES: usize = 600;

/// A running process.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What it is to the world.
    pub process: Arc<Process>,
    /// Its engine.
    pub chronos: Chronos,
    /// Its handle of the collection.
    pub things: Collection,
}

fn config() -> Result<Config> {
    Config::builder()
        .connection("main", "embedded::memory:")
        .space("objects", SpaceConnection::memory())
        .database(Database::runtime("acme", "main", DATABASE).space("objects").bucket("simulated"))
        .inline_max_bytes(INLINE_BYTES)
        .build()
}

impl Machine {
    /// Starts one.
    ///
    /// # Errors
    /// None that the engine's own configuration does not have.
    pub(crate) fn start(world: &Arc<World>, skew_millis: i64) -> Result<Self> {
        let (number, random) = world.next_process();
        let process = Process::new(number, skew_millis);
        let clock = Arc::new(ProcessClock { process: Arc::clone(&process), time: world.time });
        let env = Env { clock, random, fail: world.fail.clone(), ..Env::default() };
        let documents: Arc<dyn DocumentStore> =
            Arc::new(SimulatedDocuments::new(Arc::clone(world), Arc::clone(&process)));
        let objects: Arc<dyn ObjectStorage> =
            Arc::new(SimulatedObjects::new(Arc::clone(world), Arc::clone(&process)));
        let chronos = Chronos::builder(config()?)
            .env(env)
            .wrap_documents(move |_| Arc::clone(&documents))
            .wrap_objects(move |_| Arc::clone(&objects))
            .open()?;
        let things = chronos.with(Route::runtime().tenant("acme").collection(COLLECTION))?;
        world.history.line(format_args!("p{number} starts, its clock is wrong by {skew_millis} ms"));
        Ok(Self { process, chronos, things })
    }

    /// Starts the worker of a process, which runs until the world heals.
    pub(crate) fn work(&self, world: &Arc<World>, every: Duration) {
        let (worker, stop) = (self.chronos.worker(), Arc::clone(world).healed());
        tokio::spawn(async move { worker.run(every, stop, |_| ()).await });
    }
}
