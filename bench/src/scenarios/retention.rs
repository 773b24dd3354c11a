//! Versions that leave the index, and reads of them.

use std::path::Path;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use chronos_db::ItemId;
use serde::{Deserialize, Serialize};

use super::worker::{RollingUp, Task, Worker, ready};
use crate::baseline::mongo::Baseline;
use crate::bench_store::{BUCKET, BenchStore, How, open};
use crate::measure::{Lcg, Rate, compare, forget_peak_memory, median, memory, rate};
use crate::report::Line;
use crate::stored::{Stored, person};
use crate::{Context, Result, targets};

/// Versions of each item, and how many of them stay.
const VERSIONS: usize = 20;
const KEPT: u32 = 10;

/// What a roll-up took.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    versions: u64,
    manifests: usize,
    per_second: f64,
    peak_growth: f64,
}

/// In a process of its own.
pub(super) async fn work(task: RollingUp) -> Result<()> {
    let db = open(&How {
        database: &task.database,
        objects: Some(&task.objects),
        kept: Some(task.kept),
        ..How::default()
    })?;
    db.people.stable_cv().await?;
    ready().await?;
    forget_peak_memory()?;
    let before = memory("VmRSS")?;
    let begun = Instant::now();
    let rolled_up = db.people.roll_up().await?;
    let per_second = rolled_up.versions as f64 / begun.elapsed().as_secs_f64();
    let peak_growth = memory("VmHWM")? - before;
    let taken =
        Taken { versions: rolled_up.versions, manifests: rolled_up.manifests.len(), per_second, peak_growth };
    db.chronos.shutdown().await?;
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// Loads `rows` rows whose payloads are said to be stored, and rolls up those beyond the window.
async fn rolled_up(context: &Context, rows: usize) -> Result<Taken> {
    let (baseline, folder) = (Baseline::connect("roll_up").await?, tempfile::tempdir_in(&context.dir)?);
    let db = open(&How { database: baseline.name(), objects: Some(folder.path()), ..How::default() })?;
    db.people.ensure_index("email").await?;
    db.chronos.shutdown().await?;
    let ids: Vec<ObjectId> = (0..rows / VERSIONS).map(|_| ObjectId::new()).collect();
    let items = ids.len();
    // All items are changed in turn.
    let version = |number: usize| {
        let (nth, ov) = (number % items, i64::try_from(number / items)?);
        Stored::new(ids[nth], ov, i64::try_from(number)?, i64::try_from(nth)?, person(number, 50))
    };
    let all = items * VERSIONS;
    baseline.load(&baseline.rows(), (0..all).map(|number| Ok(version(number)?.stored_row(BUCKET)))).await?;
    let newest = all - items..all;
    baseline.load(&baseline.heads(), newest.map(|number| Ok(version(number)?.head(true)))).await?;
    baseline.set_counter(i64::try_from(all)? - 1).await?;
    let task = Task::RollUp(RollingUp {
        database: baseline.name().to_owned(),
        objects: folder.path().to_owned(),
        kept: KEPT,
    });
    let taken = tokio::task::spawn_blocking(move || {
        let mut worker = Worker::start(&task)?;
        worker.go()?;
        worker.seen::<Taken>()
    });
    let taken = taken.await??;
    baseline.drop().await?;
    let beyond = (items * (VERSIONS - KEPT as usize)) as u64;
    if taken.versions == beyond {
        Ok(taken)
    } else {
        Err(format!("{} of {beyond} versions were rolled up", taken.versions).into())
    }
}

pub(crate) async fn roll_up(context: &Context) -> Result<Vec<Line>> {
    let rows = if context.large { 2_000_000 } else { 100_000 };
    let (mut rates, mut growth, mut small, mut manifests) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..=context.rounds {
        let quarter = rolled_up(context, rows / 4).await?;
        let whole = rolled_up(context, rows).await?;
        manifests = whole.manifests;
        if round > 0 {
            small.push(quarter.peak_growth);
            rates.push(whole.per_second);
            growth.push(whole.peak_growth);
        }
    }
    let beyond = rows / VERSIONS * (VERSIONS - KEPT as usize);
    Ok(vec![
        Line::value("roll_up", "versions/s", median(&rates), None)
            .note("versions", beyond)
            .note("manifests", manifests),
        // Allocators keep what they once had: below some megabytes nothing can be measured.
        Line::against(
            "roll_up_memory",
            "MiB peak growth",
            median(&growth).max(8.0),
            median(&small).max(8.0),
            Some(targets::ROLL_UP_MEMORY),
        )
        .note("versions", beyond)
        .note("ceiling_versions", beyond / 4)
        .note("growth_mib", median(&growth).round()),
    ])
}

/// Items that are written and pruned through the library.
const ITEMS: usize = 500;

async fn past(database: &str, objects: &Path) -> Result<(BenchStore, Vec<ItemId>)> {
    let db =
        open(&How { database, objects: Some(objects), kept: Some(KEPT), cache: Some(0), ..How::default() })?;
    let written = (0..ITEMS).map(|number| {
        let people = db.people.clone();
        tokio::spawn(async move {
            let id = people.create(person(number, 50)).await?.id;
            for version in 1..VERSIONS {
                people.update(&id, person(number + version, 50)).await?;
            }
            Ok::<_, chronos_db::Error>(id)
        })
    });
    let mut ids = Vec::new();
    for item in written.collect::<Vec<_>>() {
        ids.push(item.await??);
    }
    db.people.flush(Duration::from_secs(120)).await?;
    let (pruned, beyond) = (db.people.prune().await?.versions, (ITEMS * (VERSIONS - KEPT as usize)) as u64);
    if pruned == beyond {
        Ok((db, ids))
    } else {
        Err(format!("{pruned} of {beyond} versions were pruned").into())
    }
}

/// Reads versions of all items from `lowest` on, ten of each.
async fn reading(db: &BenchStore, ids: &[ItemId], lowest: i64, round: Duration) -> Result<Rate> {
    let (people, ids) = (db.people.clone(), ids.to_vec());
    let seen = rate(1, round, move |_, call| {
        let mut random = Lcg(call.wrapping_mul(31));
        let (people, id) = (people.clone(), ids[random.below(ids.len())]);
        let ov = lowest + random.below(KEPT as usize) as i64;
        async move {
            match people.get(&id).version(ov).await? {
                Some(seen) if seen.ov == ov => Ok(()),
                _ => Err(format!("version {ov} was not found").into()),
            }
        }
    });
    let seen = seen.await?;
    if seen.failed > 0 {
        Err(format!("{} of {} reads failed", seen.failed, seen.calls).into())
    } else {
        Ok(seen)
    }
}

pub(crate) async fn as_of(context: &Context) -> Result<Vec<Line>> {
    let (baseline, folder) = (Baseline::connect("beyond").await?, tempfile::tempdir_in(&context.dir)?);
    let (db, ids) = past(baseline.name(), folder.path()).await?;
    let inside = i64::try_from(VERSIONS)? - i64::from(KEPT);
    let seen = compare(
        context,
        async || Ok(reading(&db, &ids, 0, context.round).await?.per_second),
        async || Ok(reading(&db, &ids, inside, context.round).await?.per_second),
    );
    let seen = seen.await?;
    let (ours, ceiling) = seen.medians();
    db.chronos.shutdown().await?;
    baseline.drop().await?;
    Ok(vec![
        Line::against("as_of_beyond", "reads/s", ours, ceiling, None)
            .note("items", ITEMS)
            .note("ceiling", "inside the window")
            .note("ratio_of_rounds", seen.spread()),
    ])
}
