//! Real processes that write one collection, against as many that don't meet.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::baseline::mongo::Baseline;
use crate::measure::{median, percentile, rate};
use crate::opened::{How, open};
use crate::report::Line;
use crate::scenarios::restore;
use crate::stored::person;
use crate::{Context, Result, targets, watch};

/// Writers of each process.
const WRITERS: usize = 20;

/// What a process that this program starts has to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Writes a collection together with others.
    Write(Writing),
    /// Restores a collection; alone, so that its memory can be told.
    Restore(restore::Restoring),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Writing {
    database: String,
    collection: String,
    number: usize,
    millis: u64,
}

/// What a writing process saw.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    per_second: f64,
    latencies: Vec<u64>,
    calls: u64,
    failed: u64,
    groups: Vec<usize>,
}

/// The other side: says when it is ready, waits for a line, works, and tells what it saw.
pub(crate) async fn work(task: &str) -> Result<()> {
    match serde_json::from_str(task)? {
        Task::Write(task) => write(task).await,
        Task::Restore(task) => restore::work(task).await,
    }
}

/// Says that this process is ready, and waits until all are.
pub(super) async fn ready() -> Result<()> {
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose()).await??;
    Ok(())
}

async fn write(task: Writing) -> Result<()> {
    let opened =
        open(&How { database: &task.database, collection: Some(&task.collection), ..How::default() })?;
    let people = opened.people.clone();
    people.create(person(task.number, 50)).await?;
    ready().await?;
    opened.groups.take();
    let number = task.number;
    let seen = rate(WRITERS, Duration::from_millis(task.millis), move |writer, call| {
        let people = people.clone();
        async move {
            people
                .create(person(number * 100_000_000 + writer * 1_000_000 + usize::try_from(call)?, 50))
                .await?;
            Ok(())
        }
    });
    let seen = seen.await?;
    let groups = opened.groups.take();
    opened.chronos.shutdown().await?;
    let seen = Seen {
        per_second: seen.per_second,
        latencies: seen.latencies,
        calls: seen.calls,
        failed: seen.failed,
        groups,
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// A started process; ended with this.
pub(super) struct Worker {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    /// Blocks until it is ready.
    pub(super) fn start(task: &Task) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("a worker has no output")?;
        let mut worker = Self { process, lines: BufReader::new(output).lines() };
        match worker.lines.next().transpose()? {
            Some(line) if line == "ready" => Ok(worker),
            other => Err(format!("a worker is not ready: {other:?}").into()),
        }
    }

    pub(super) fn go(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut().ok_or("a worker has no input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// Blocks until it is done.
    pub(super) fn seen<T: DeserializeOwned>(mut self) -> Result<T> {
        let line = self.lines.next().transpose()?.ok_or("a worker ended without saying what it saw")?;
        let seen = serde_json::from_str(&line)?;
        let status = self.process.wait()?;
        if status.success() { Ok(seen) } else { Err(format!("a worker ended with {status}").into()) }
    }
}

/// Lets `processes` write at once, one collection or one each.
async fn together(context: &Context, processes: usize, shared: bool) -> Result<Seen> {
    let baseline = Baseline::connect("processes").await?;
    let millis = u64::try_from(context.round.as_millis())?;
    let task = |number: usize| {
        let collection = if shared { "people".to_owned() } else { format!("people{number}") };
        Task::Write(Writing { database: baseline.name().to_owned(), collection, number, millis })
    };
    let tasks: Vec<Task> = (0..processes).map(task).collect();
    let seen = tokio::task::spawn_blocking(move || -> Result<Vec<Seen>> {
        let mut workers = tasks.iter().map(Worker::start).collect::<Result<Vec<_>>>()?;
        workers.iter_mut().try_for_each(Worker::go)?;
        workers.into_iter().map(Worker::seen).collect()
    });
    let mut all = Seen::default();
    for seen in seen.await?? {
        all.per_second += seen.per_second;
        all.latencies.extend(seen.latencies);
        all.calls += seen.calls;
        all.failed += seen.failed;
        all.groups.extend(seen.groups);
    }
    all.latencies.sort_unstable();
    baseline.drop().await?;
    Ok(all)
}

pub(crate) async fn meet(context: &Context, processes: usize) -> Result<Vec<Line>> {
    let (mut rates, mut p99s) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut failed, mut groups) = (0, [Vec::new(), Vec::new()]);
    for round in 0..=context.rounds {
        for (side, shared) in [true, false].into_iter().enumerate() {
            let seen = together(context, processes, shared).await?;
            failed += seen.failed;
            if round > 0 {
                rates[side].push(seen.per_second);
                p99s[side].push(percentile(&seen.latencies, 0.99) / 1000.0);
                groups[side].extend(seen.groups);
            }
        }
    }
    let target = if processes <= 4 { targets::FOUR_PROCESSES } else { targets::EIGHT_PROCESSES };
    let name = format!("mongo_processes_{processes}");
    Ok(vec![
        Line::against(name.clone(), "creates/s", median(&rates[0]), median(&rates[1]), Some(target))
            .note("writers_each", WRITERS)
            .note("group", watch::describe(&groups[0]))
            .note("ceiling_group", watch::describe(&groups[1])),
        Line::against(
            format!("{name}_p99"),
            "ms",
            median(&p99s[0]),
            median(&p99s[1]),
            Some(targets::PROCESSES_P99),
        ),
        Line::value(
            format!("{name}_failed"),
            "failed writes",
            failed as f64,
            Some(targets::PROCESSES_FAILED),
        ),
    ])
}
