//! Real processes that write one collection, against as many that don't meet.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::worker::{Task, Worker, Writing, ready};
use crate::baseline::mongo::Baseline;
use crate::bench_store::{How, open};
use crate::measure::{median, percentile, rate};
use crate::report::Line;
use crate::stored::person;
use crate::{Context, Result, targets, watch};

/// Writers of each process.
const WRITERS: usize = 20;

/// What a writing process saw.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    per_second: f64,
    latencies: Vec<u64>,
    calls: u64,
    failed: u64,
    groups: Vec<usize>,
}

/// In a process of its own.
pub(super) async fn write(task: Writing) -> Result<()> {
    let db = open(&How { database: &task.database, collection: Some(&task.collection), ..How::default() })?;
    let people = db.people.clone();
    people.create(person(task.number, 50)).await?;
    ready().await?;
    db.groups.take();
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
    let groups = db.groups.take();
    db.chronos.shutdown().await?;
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

pub(crate) async fn share_a_collection(context: &Context, processes: usize) -> Result<Vec<Line>> {
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
