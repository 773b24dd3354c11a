//! One run: the world of a seed, from its first process to the verdict.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::objects::ObjectStorage as _;
use chronos_db::{Chronos, Error, Result, json};
use futures::TryStreamExt as _;

use crate::bus_check;
use crate::chance::own_this_thread;
use crate::check::{self, Violations};
use crate::client::{BY, colour};
use crate::end::End;
use crate::history::Operation;
use crate::log::Log;
use crate::machine::Machine;
use crate::trouble::Cluster;
use crate::world::{Options, World, wait};

/// Longer than any pause and any client.
const ALL_ENDED: Duration = Duration::from_secs(3 * 3600);
/// After this everything is stored.
const DRAINED: Duration = Duration::from_secs(600);
/// After this notes are looked at once more.
const A_DAY: Duration = Duration::from_secs(25 * 3600);
/// The number of the operation that comes after all others.
const JUDGE: i64 = -2;
/// A run needs deep stacks in a build without optimisation.
const STACK: usize = 64 * 1024 * 1024;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which run it was.
    pub seed: u64,
    /// What is wrong; nothing if all is well.
    pub violations: Violations,
    /// The time line.
    pub history: String,
    /// How many operations clients began.
    pub operations: usize,
    /// How many processes were killed.
    pub kills: usize,
}

/// Runs a seed on a thread of its own.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Verdict {
    let options = options.clone();
    let runs = move || {
        own_this_thread(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        match runtime {
            Ok(runtime) => runtime.block_on(judged(seed, &options)),
            Err(error) => failed(seed, error.to_string()),
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(runs);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panic)) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            failed(seed, format!("panicked: {}", words.or(panic.downcast_ref().copied()).unwrap_or_default()))
        }
        Err(error) => failed(seed, error.to_string()),
    }
}

fn failed(seed: u64, why: String) -> Verdict {
    Verdict { seed, violations: vec![why], history: String::new(), operations: 0, kills: 0 }
}

async fn judged(seed: u64, options: &Options) -> Verdict {
    let world = match World::new(seed, options) {
        Ok(world) => world,
        Err(error) => return failed(seed, error.to_string()),
    };
    world.history.line(format_args!("seed {seed}: {:?}, {:?}", world.kind, world.rates));
    let judged = tokio::select! {
        biased;
        () = world.runs_away() => Ok(vec!["the document store is asked again and again, without end".to_owned()]),
        judged = whole(&world) => judged,
    };
    let violations = match judged {
        Ok(violations) => violations,
        Err(error) => vec![format!("the healed world fails: {error}")],
    };
    for violation in &violations {
        world.history.line(format_args!("WRONG: {violation}"));
    }
    let history = world.history.text();
    let kills = history.matches(" is killed\n").count();
    Verdict {
        seed,
        violations,
        operations: world.history.operations().len() + world.history.steps(),
        kills,
        history,
    }
}

async fn whole(world: &Arc<World>) -> Result<Violations> {
    let cluster = Cluster::start(world).await?;
    cluster.trouble(10 + world.chance.below(50)).await?;
    cluster.heal();
    wait(ALL_ENDED).await;
    if let Some(bus) = &cluster.bus {
        let end = bus_check::end(bus, &Machine::start(world, 0)?).await;
        return end.map_err(|error| Error::database(error.to_string()));
    }
    let operations = world.history.operations();
    let log = Log::read(world).await?;
    let living: Vec<u32> = cluster.machines.lock().iter().map(|machine| machine.process.number).collect();
    let mut wrong = check::stored_by_the_living(&log, &operations, &living);
    let auditor = Machine::start(world, 0)?;
    wrong.extend(work(&auditor.chronos).await);
    // A number that a dead process was given is closed by the first that wants to pass it.
    auditor.things[0]
        .create(json!({ BY: JUDGE, "colour": colour(JUDGE) }))
        .actor(format!("op-{JUDGE}"))
        .await?;
    auditor.things[0].stable_cv().await?;
    wrong.extend(work(&auditor.chronos).await);
    let log = Log::read(world).await?;
    wrong.extend(check::log(&log));
    wrong.extend(check::writes(&log, &world.setting, &operations));
    wrong.extend(check::reads(&log, &world.setting, &operations));
    wrong.extend(check::drained(&log));
    let end = End { auditor: &auditor, log: &log, setting: &world.setting };
    wrong.extend(end.reads().await?);
    wrong.extend(end.counters().await?);
    wrong.extend(end.queue(&operations).await?);
    wrong.extend(end.backups().await?);
    for _ in 0..2 {
        wait(A_DAY).await;
        wrong.extend(work(&auditor.chronos).await);
    }
    let log = Log::read(world).await?;
    let keys: Vec<String> = world.objects.list("").map_ok(|object| object.key).try_collect().await?;
    wrong.extend(check::leftovers(&log, &keys));
    for things in &auditor.things {
        for problem in things.verify().await?.problems {
            wrong.push(format!("verify: {problem:?}"));
        }
    }
    wrong.extend(unchanged(&operations, &world.history.operations()));
    Ok(wrong)
}

/// Works off what is due.
async fn work(chronos: &Chronos) -> Violations {
    let report = chronos.worker().once(DRAINED).await;
    report.failures.iter().map(|failure| format!("a job of the worker fails: {failure:?}")).collect()
}

/// Nobody goes on after everybody has ended.
fn unchanged(then: &[Operation], now: &[Operation]) -> Violations {
    let ended = |operations: &[Operation]| operations.iter().filter(|o| o.ended.is_some()).count();
    if ended(then) == ended(now) { Vec::new() } else { vec!["a client goes on after hours".to_owned()] }
}
