//! Starting a process: an engine of its own over the stores that all share.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::DocumentStore;
use chronos_db::objects::ObjectStorage;
use chronos_db::{Chronos, Collection, Env, Result};

use chronow::hot::documents::DocumentsHot;

use crate::documents::SimulatedDocuments;
use crate::objects::SimulatedObjects;
use crate::process::{Process, ProcessClock};
use crate::setting::Setting;
use crate::world::World;

/// The database of the bus.
const BUS: &str = "sim_bus";

/// A running process.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What it is to the world.
    pub process: Arc<Process>,
    /// Its hot tier of the bus.
    pub hot: Arc<DocumentsHot>,
    /// Its engine.
    pub chronos: Chronos,
    /// Its handles of the collection, one for each tenant.
    pub things: Vec<Collection>,
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
        let hot = Arc::new(DocumentsHot::new(Arc::clone(&documents), BUS, env.clone()));
        let chronos = Chronos::builder(world.setting.config(&world.chance)?)
            .env(env)
            .wrap_documents(move |_| Arc::clone(&documents))
            .wrap_objects(move |_| Arc::clone(&objects))
            .open()?;
        let things = (0..world.setting.tenants).map(|tenant| chronos.with(Setting::route(tenant)));
        let things = things.collect::<Result<Vec<_>>>()?;
        world.history.line(format_args!("p{number} starts, its clock is wrong by {skew_millis} ms"));
        Ok(Self { process, hot, chronos, things })
    }

    /// Starts the worker of a process, which runs until the world heals.
    pub(crate) fn work(&self, world: &Arc<World>, every: Duration) {
        let (worker, stop) = (self.chronos.worker(), Arc::clone(world).healed());
        tokio::spawn(async move { worker.run(every, stop, |_| ()).await });
    }
}
