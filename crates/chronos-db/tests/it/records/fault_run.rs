//! A long day: everything is written while the ways to the stores stall, break and lose answers, and two workers
//! are killed in turn. Then nothing is lost or doubled, everything is counted, and what was erased is nowhere,
//! before anything is repaired.
//!
//! `CHRONOS_FAULT_SECONDS=600` lets it go on for so long, `CHRONOS_FAULT_SEED` gives another day.

mod audit;
mod erased;
mod ledger;
mod shop;
mod weather;
mod writers;

use std::fs::File;
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronos_db::{Chronos, Error, Json, json};
use test_support::SeededRandom;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::ledger::Ledger;
use self::weather::{Weather, below};
use super::child;
use super::pairing::{Kind, Pairing, Store, on_every_pairing};

on_every_pairing!(nothing_is_lost_and_everything_counted_whatever_fails_and_dies);

const TASK: &str = "CHRONOS_TEST_FAULT_WORKER";
const SECONDS: u64 = 8;
/// Larger payloads are stored before their commit.
const INLINE_MAX: usize = 3_000;

fn config() -> Json {
    let map = json!({"indexedProps": ["s", "n"], "base64Props": {"file": {"contentType": "text/plain", "preferredText": true}}});
    json!({
        "collectionMaps": {"things": map, "copy": map, "people": map},
        "counterRules": {"rules": [
            {"name": "open", "when": {"s": "open"}, "countUnique": ["n"]},
            {"name": "deep", "scope": "payload", "when": {"deep.x": {"$gte": 5}}},
            {"name": "openNow", "mode": "gauge", "when": {"s": "open"}},
        ]},
        "retention": {"ver": {"maxPerItem": 4}},
        "rollup": {"manifestPeriod": "daily"},
        // An outage is not the operation's fault: what waits is tried until it took place.
        "fallback": {"maxAttempts": 10_000, "baseDelayMs": 50, "maxDelayMs": 500, "spoolPath": "./spool"},
        "inlineMaxBytes": INLINE_MAX,
    })
}

/// Whether a call may end so while a store is away: it may be made again, or nobody knows what became of it.
fn may_pass(error: &Error) -> bool {
    error.is_retryable() || error.is_undecided()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |given| given.parse().expect("a number"))
}

/// A worker in a process of its own, which ends with its test, however that ends.
struct WorkerProcess(Child);

impl WorkerProcess {
    async fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "a worker ended by itself");
        self.0.kill().unwrap();
        tokio::task::spawn_blocking(move || self.0.wait()).await.unwrap().unwrap();
    }

    /// Lets it bring to an end what it is at.
    async fn stop(mut self) {
        drop(self.0.stdin.take());
        let ended = tokio::task::spawn_blocking(move || self.0.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "a worker that was stopped: {ended}");
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that can die.
enum Mortal {
    Process(WorkerProcess),
    /// Where no other process sees the store.
    Task(AbortOnDropHandle<()>, CancellationToken),
}

impl Mortal {
    fn start(p: &Pairing, store: &Store, more: &Json, log: &File) -> Self {
        let mut log = log.try_clone().unwrap();
        if p.kind == Kind::EmbeddedMemory {
            let (chronos, stop) = (store.chronos.clone(), CancellationToken::new());
            let stopped = stop.clone().cancelled_owned();
            let work = async move { work(&chronos, stopped, &mut log).await };
            return Self::Task(AbortOnDropHandle::new(tokio::spawn(work)), stop);
        }
        let test = concat!(module_path!(), "::one_worker");
        let mut command = child::command(p, test, TASK, more, "", json!({}));
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        Self::Process(WorkerProcess(command.spawn().unwrap()))
    }

    async fn kill(self) {
        match self {
            Self::Process(process) => process.kill().await,
            Self::Task(task, _) => assert!(!task.is_finished(), "a worker ended by itself"),
        }
    }

    async fn stop(self) {
        match self {
            Self::Process(process) => process.stop().await,
            Self::Task(task, stop) => {
                stop.cancel();
                task.await.unwrap();
            }
        }
    }
}

/// Works until it is stopped, and writes down what is wrong.
async fn work(chronos: &Chronos, stop: impl Future<Output = ()> + Send, log: &mut (impl Write + Send)) {
    let worker = chronos.worker();
    let rounds = worker.run(Duration::from_millis(300), stop, |report| {
        for (collection, row) in &report.damaged {
            writeln!(log, "DAMAGED {collection}: {row:?}").unwrap();
        }
        for failure in &report.failures {
            writeln!(log, "{} of {}: {}", failure.job, failure.target, failure.error).unwrap();
        }
    });
    rounds.await;
}

/// Does nothing in an ordinary run: it is what the run starts, and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    let stop = async {
        let wait = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
    };
    work(&chronos, stop, &mut std::io::stdout()).await;
    chronos.shutdown().await.unwrap();
}

/// Kills one of two workers after the other, and starts it anew, until the time is over; returns how many died.
async fn kill_in_turn(start: impl Fn() -> Mortal, seed: u64, over: &CancellationToken) -> u64 {
    let random = SeededRandom::new(seed);
    let mut workers = [0, 1].map(|_| Some(start()));
    let mut killed = 0;
    for turn in (0..workers.len()).cycle() {
        // The moment of a kill is no condition to wait for.
        let until = Duration::from_millis(1_000 + below(&random, 2_500));
        if over.run_until_cancelled(tokio::time::sleep(until)).await.is_none() {
            break;
        }
        workers[turn].take().unwrap().kill().await;
        killed += 1;
        workers[turn] = Some(start());
    }
    for worker in workers.into_iter().flatten() {
        worker.stop().await;
    }
    killed
}

async fn nothing_is_lost_and_everything_counted_whatever_fails_and_dies(p: &Pairing) {
    let (seconds, seed) = (number("CHRONOS_FAULT_SECONDS", SECONDS), number("CHRONOS_FAULT_SEED", 11));
    eprintln!("CHRONOS_FAULT_SEED={seed} CHRONOS_FAULT_SECONDS={seconds} on {:?}", p.kind);
    let weather = Weather::over(p).await;
    let mut more = config();
    weather.lead_through(p, &mut more);
    let store = weather.open(p, &more);
    let log = File::create(p.folder().join("workers.log")).unwrap();
    let (ledger, over) = (Arc::new(Ledger::default()), CancellationToken::new());
    let began = Instant::now();
    let day = async {
        weather.change(seed, Duration::from_secs(seconds)).await;
        over.cancel();
    };
    let deaths = kill_in_turn(|| Mortal::start(p, &store, &more, &log), seed, &over);
    let written = writers::all(&store, &ledger, seed, &over);
    let ((), killed, ()) = tokio::join!(day, deaths, written);
    let acknowledged = ledger.summary();
    eprintln!(
        "{:?}: {} faults, {killed} workers killed, {acknowledged} in {:?}",
        p.kind,
        weather.faults(),
        began.elapsed()
    );
    assert!(killed >= 2 && weather.faults() > 3, "nothing happened");
    audit::audit(p, &store, &ledger).await;
    // It ends with its proxies; the audit opened the stores without them.
    store.is_damaged();
    store.chronos.shutdown().await.unwrap();
    let said = std::fs::read_to_string(p.folder().join("workers.log")).unwrap();
    let damaged: Vec<&str> = said.lines().filter(|line| line.starts_with("DAMAGED")).collect();
    assert!(damaged.is_empty(), "{damaged:?}");
    eprintln!("{:?}: audited after {:?}", p.kind, began.elapsed());
}
