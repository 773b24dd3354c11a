//! A whole collection goes back to an earlier state.

use std::time::Instant;

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde::{Deserialize, Serialize};

use super::worker::{Restoring, Task, Worker, ready};
use crate::baseline::mongo::Baseline;
use crate::bench_store::{How, open};
use crate::measure::{forget_peak_memory, median, memory};
use crate::report::Line;
use crate::stored::{Stored, person};
use crate::{Context, Result, targets, watch};

/// What a restore took.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    per_second: f64,
    peak_growth: f64,
    groups: Vec<usize>,
}

/// Loads `items` items of two versions.
async fn load(baseline: &Baseline, items: usize) -> Result<()> {
    let ids: Vec<ObjectId> = (0..items).map(|_| ObjectId::new()).collect();
    let count = i64::try_from(items)?;
    let version = |number: usize, ov: i64| {
        let cv = i64::try_from(number)?;
        Stored::new(ids[number], ov, cv + ov * count, cv, person(number + usize::try_from(ov)?, 50))
    };
    for ov in [0, 1] {
        baseline.load(&baseline.rows(), (0..items).map(|number| Ok(version(number, ov)?.row()))).await?;
    }
    baseline.load(&baseline.heads(), (0..items).map(|number| Ok(version(number, 1)?.head(false)))).await?;
    baseline.set_counter(2 * count - 1).await
}

/// In a process of its own.
pub(super) async fn work(task: Restoring) -> Result<()> {
    let db = open(&How { database: &task.database, ..How::default() })?;
    db.people.stable_cv().await?;
    ready().await?;
    forget_peak_memory()?;
    let before = memory("VmRSS")?;
    let begun = Instant::now();
    let restored = db.people.restore_collection().to_cv(i64::try_from(task.items)? - 1).await?;
    let per_second = task.items as f64 / begun.elapsed().as_secs_f64();
    let peak_growth = memory("VmHWM")? - before;
    if restored.restored != task.items as u64 {
        return Err(format!("{} of {} items were restored", restored.restored, task.items).into());
    }
    let taken = Taken { per_second, peak_growth, groups: db.groups.take() };
    db.chronos.shutdown().await?;
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// A collection that was restored.
struct Round {
    taken: Taken,
    baseline: Baseline,
    /// The heads as they were before.
    before: Vec<Document>,
}

async fn restore(items: usize) -> Result<Round> {
    let baseline = Baseline::connect("restore").await?;
    let db = open(&How { database: baseline.name(), ..How::default() })?;
    db.people.ensure_index("email").await?;
    db.chronos.shutdown().await?;
    load(&baseline, items).await?;
    let before = baseline.newest(&baseline.heads(), doc! {}, i64::try_from(items)?).await?;
    let task = Task::Restore(Restoring { database: baseline.name().to_owned(), items });
    let taken = tokio::task::spawn_blocking(move || {
        let mut worker = Worker::start(&task)?;
        worker.go()?;
        worker.seen()
    });
    Ok(Round { taken: taken.await??, baseline, before })
}

/// Writes the rows and heads that a restore of `from` wrote to a collection in the same state as before.
async fn bulk(from: &Baseline, before: Vec<Document>, items: usize, group: usize) -> Result<f64> {
    let restored = from.newest(&from.rows(), doc! { "op": "RESTORE" }, i64::try_from(items)?).await?;
    let heads = from.newest(&from.heads(), doc! {}, i64::try_from(items)?).await?;
    let to = Baseline::connect("restore_raw").await?;
    to.copy_indexes(&from.rows(), &to.rows()).await?;
    to.copy_indexes(&from.heads(), &to.heads()).await?;
    let plain: Vec<Document> =
        from.newest(&from.rows(), doc! { "op": { "$ne": "RESTORE" } }, 2 * i64::try_from(items)?).await?;
    to.load(&to.rows(), plain.into_iter().map(Ok)).await?;
    to.load(&to.heads(), before.into_iter().map(Ok)).await?;
    let client = to.again().await?;
    let begun = Instant::now();
    for (rows, heads) in restored.chunks(group).zip(heads.chunks(group)) {
        client.rows().insert_many(rows).ordered(false).await?;
        replace(&client, heads).await?;
    }
    let rate = items as f64 / begun.elapsed().as_secs_f64();
    to.drop().await?;
    Ok(rate)
}

/// Replaces heads by one `update` command, which is what the driver's bulk writes come to before MongoDB 8.
async fn replace(baseline: &Baseline, heads: &[Document]) -> Result<()> {
    let mut updates = Vec::with_capacity(heads.len());
    for head in heads {
        updates.push(doc! { "q": { "_id": head.get_object_id("_id")? }, "u": head.clone() });
    }
    let collection = baseline.heads().name().to_owned();
    let command = doc! { "update": collection, "updates": updates, "ordered": false, "writeConcern": { "w": "majority", "j": true } };
    let answer = baseline.database.run_command(command).await?;
    if answer.contains_key("writeErrors") {
        Err(format!("heads were not replaced: {answer}").into())
    } else {
        Ok(())
    }
}

pub(crate) async fn collection(context: &Context) -> Result<Vec<Line>> {
    let items = if context.large { 100_000 } else { 10_000 };
    let (mut ours, mut ceiling, mut growth, mut groups) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut small = Vec::new();
    for round in 0..=context.rounds {
        let quarter = restore(items / 4).await?;
        quarter.baseline.drop().await?;
        let Round { taken, baseline, before } = restore(items).await?;
        let rate = bulk(&baseline, before, items, watch::usual(&taken.groups)).await?;
        baseline.drop().await?;
        if round > 0 {
            small.push(quarter.taken.peak_growth);
            ours.push(taken.per_second);
            ceiling.push(rate);
            growth.push(taken.peak_growth);
            groups.extend(taken.groups);
        }
    }
    Ok(vec![
        Line::against(
            "restore_collection",
            "items/s",
            median(&ours),
            median(&ceiling),
            Some(targets::RESTORE),
        )
        .note("items", items)
        .note("group", watch::describe(&groups)),
        // Allocators keep what they once had: below some megabytes nothing can be measured.
        Line::against(
            "restore_memory",
            "MiB peak growth",
            median(&growth).max(8.0),
            median(&small).max(8.0),
            Some(targets::RESTORE_MEMORY),
        )
        .note("items", items)
        .note("ceiling_items", items / 4)
        .note("growth_mib", median(&growth).round()),
    ])
}
