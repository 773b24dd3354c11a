//! Who makes trouble: kills, pauses, cuts off, moves clocks, takes stores away.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Error, Result};
use parking_lot::Mutex;

use crate::bus::BusWork;
use crate::client::{Client, Known};
use crate::machine::Machine;
use crate::world::{Kind, World, wait};

/// Between two looks of the one that makes trouble.
const LOOK_MILLIS: u64 = 3_000;

/// The processes of a run, and their clients.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where they are.
    pub world: Arc<World>,
    /// What their clients know.
    pub known: Arc<Known>,
    /// Those that live.
    pub machines: Mutex<Vec<Machine>>,
    /// What they do on the bus, if they are there.
    pub bus: Option<Arc<BusWork>>,
    clients: u64,
    operations: u64,
    rest_millis: u64,
}

impl Cluster {
    /// Starts the processes of a run.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub(crate) async fn start(world: &Arc<World>) -> Result<Arc<Self>> {
        let chance = &world.chance;
        let failed = |error: chronow::Error| Error::database(error.to_string());
        let bus = world.on_bus.then(|| BusWork::drawn(world)).transpose().map_err(failed)?;
        if let Some(bus) = &bus {
            // Before anything goes wrong, so that every message is every subscription's.
            bus.ensure(&Machine::start(world, 0)?).await.map_err(failed)?;
        }
        world.begin();
        let cluster = Arc::new(Self {
            world: Arc::clone(world),
            known: Arc::default(),
            machines: Mutex::default(),
            bus,
            clients: 1 + chance.below(3),
            operations: 10 + chance.below(25),
            rest_millis: [20, 200, 2_000, 20_000][chance.below(4) as usize],
        });
        for _ in 0..2 + chance.below(3) {
            cluster.add()?;
        }
        Ok(cluster)
    }

    /// Starts one more process with its clients.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub(crate) fn add(&self) -> Result<()> {
        let chance = &self.world.chance;
        let machine = Machine::start(&self.world, millis_wrong(&self.world))?;
        if let Some(bus) = &self.bus {
            tokio::spawn(Arc::clone(bus).publish(machine.clone(), self.operations, self.rest_millis));
            for _ in 0..self.clients {
                tokio::spawn(Arc::clone(bus).consume(machine.clone(), self.rest_millis.min(2_000)));
            }
            self.machines.lock().push(machine);
            return Ok(());
        }
        for _ in 0..self.clients {
            let (world, known, machine) = (Arc::clone(&self.world), Arc::clone(&self.known), machine.clone());
            tokio::spawn(Client { world, known, machine }.run(self.operations, self.rest_millis));
        }
        if chance.hits(500) {
            machine.work(&self.world, Duration::from_secs(5 + chance.below(60)));
        }
        self.machines.lock().push(machine);
        Ok(())
    }

    /// Makes trouble for so many looks.
    ///
    /// # Errors
    /// As [`Machine::start`].
    pub(crate) async fn trouble(&self, looks: u64) -> Result<()> {
        let (world, chance) = (&self.world, &self.world.chance);
        for _ in 0..looks {
            wait(Duration::from_millis(1 + chance.below(LOOK_MILLIS))).await;
            let machine = {
                let machines = self.machines.lock();
                chance.pick(&machines).cloned()
            };
            let Some(machine) = machine else { continue };
            let (process, number) = (&machine.process, machine.process.number);
            if world.strikes(world.rates.kill) {
                world.history.line(format_args!("p{number} is killed"));
                process.kill();
                self.machines.lock().retain(|other| other.process.number != number);
                self.add()?;
                continue;
            }
            if world.strikes(world.rates.pause) {
                let lasting = long(world);
                world.history.line(format_args!("p{number} is paused for {lasting:?}"));
                process.pause(lasting);
            }
            if world.strikes(world.rates.cut) {
                let lasting = Duration::from_millis(chance.skewed(90_000));
                let from_documents = world.kind != Kind::Embedded && chance.hits(500);
                let what = if from_documents { "documents" } else { "objects" };
                world.history.line(format_args!("p{number} is cut off from {what} for {lasting:?}"));
                if from_documents { process.cut_documents(lasting) } else { process.cut_objects(lasting) }
            }
            if world.strikes(world.rates.jump) {
                let millis = millis_wrong(world);
                world.history.line(format_args!("p{number}'s clock is now wrong by {millis} ms"));
                process.skew(millis);
            }
            if world.strikes(world.rates.outage) {
                let lasting = Duration::from_millis(chance.skewed(60_000));
                if world.kind == Kind::ReplicaSet && chance.hits(500) {
                    world.history.line(format_args!("an election takes {lasting:?}"));
                    world.elect(lasting.min(Duration::from_secs(20)));
                } else {
                    world.history.line(format_args!("the storage is away for {lasting:?}"));
                    world.storage_outage(lasting);
                }
            }
        }
        Ok(())
    }

    /// Ends all trouble; who is paused goes on when its pause ends.
    pub(crate) fn heal(&self) {
        self.world.heal();
        for machine in &*self.machines.lock() {
            machine.process.heal();
        }
    }
}

/// Seconds, or up to an hour, past every lease and grace.
fn long(world: &World) -> Duration {
    let most = *world.chance.pick(&[3_000, 40_000, 600_000, 3_600_000]).unwrap_or(&3_000);
    Duration::from_millis(world.chance.below(most))
}

fn millis_wrong(world: &World) -> i64 {
    if world.rates.jump == 0 {
        return 0;
    }
    let most = *world.chance.pick(&[50_u64, 5_000, 60_000, 400_000]).unwrap_or(&50);
    let millis = world.chance.below(2 * most).cast_signed();
    millis - most.cast_signed()
}
