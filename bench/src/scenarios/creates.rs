//! Many writers of one process create items.

use std::path::Path;
use std::time::{Duration, Instant};

use bson::doc;

use crate::baseline::mongo::Baseline;
use crate::baseline::sqlite::Copied;
use crate::bench_store::{BenchStore, How, open};
use crate::measure::{Rate, median, rate};
use crate::report::Line;
use crate::stored::{COLLECTION, person};
use crate::{Context, Result, targets, watch};

const WRITERS: usize = 64;
/// Groups of a collection that the library has under way at once; the ceiling gets as many.
const IN_FLIGHT: usize = 2;
/// How long the storing of what was created may take.
const DRAIN: Duration = Duration::from_secs(120);
/// Pairs of row and head that the ceiling writes at most.
const PAIRS: i64 = 40_000;

/// One collection of figures per way of creating.
#[derive(Debug, Default)]
struct Series {
    rates: Vec<f64>,
    p99: Vec<f64>,
    groups: Vec<usize>,
}

impl Series {
    fn add(&mut self, rate: &Rate, groups: &[usize]) {
        self.rates.push(rate.per_second);
        self.p99.push(rate.p99());
        self.groups.extend(groups);
    }

    fn line(&self, scenario: &str, ceiling: &[f64], target: targets::Target) -> Line {
        Line::against(scenario, "creates/s", median(&self.rates), median(ceiling), Some(target))
            .note("writers", WRITERS)
            .note("group", watch::describe(&self.groups))
            .note("p99_ms", (median(&self.p99) / 10.0).round() / 100.0)
    }
}

pub(crate) async fn creates(db: &BenchStore, writers: usize, round: Duration) -> Result<Rate> {
    let people = db.people.clone();
    let created = rate(writers, round, move |task, call| {
        let people = people.clone();
        async move {
            people.create(person(task * 10_000_000 + usize::try_from(call)?, 50)).await?;
            Ok(())
        }
    });
    let created = created.await?;
    if created.failed > 0 {
        return Err(format!("{} of {} creates failed", created.failed, created.calls).into());
    }
    Ok(created)
}

pub(crate) async fn embedded(context: &Context) -> Result<Vec<Line>> {
    let (mut plain, mut storing, mut ceiling, mut sustained, mut bytes) =
        (Series::default(), Series::default(), Vec::new(), Vec::new(), 0.0);
    // The first round warms up.
    for round in 0..=context.rounds {
        let folder = tempfile::tempdir_in(&context.dir)?;
        let db =
            open(&How { embedded: Some(&folder.path().join("store")), database: "bench", ..How::default() })?;
        let created = creates(&db, WRITERS, context.round).await?;
        db.chronos.shutdown().await?;
        let groups = db.groups.take();
        drop(db);
        let copied = Copied::read(&folder.path().join("store/chronos.db"), COLLECTION)?;
        let baseline = copied.write(&folder.path().join("raw.db"), watch::usual(&groups))?;
        bytes = copied.bytes();
        let stored = embedded_storing(context, folder.path()).await?;
        if round > 0 {
            plain.add(&created, &groups);
            storing.add(&stored.created, &stored.groups);
            ceiling.push(baseline);
            sustained.push(stored.sustained);
        }
    }
    Ok(vec![
        plain
            .line("embedded_creates", &ceiling, targets::EMBEDDED_CREATES)
            .note("payload", "stays in its row")
            .note("pair_bytes", bytes.round()),
        storing
            .line("embedded_creates_storing", &ceiling, targets::EMBEDDED_CREATES)
            .note("payload", "stored meanwhile, one synced file each")
            .note("until_all_stored_per_s", median(&sustained).round()),
    ])
}

/// What creates with an object storage came to.
struct Storing {
    created: Rate,
    /// Created and stored per second altogether.
    sustained: f64,
    groups: Vec<usize>,
}

/// Creates with an object storage, which competes for disk and processor.
async fn embedded_storing(context: &Context, folder: &Path) -> Result<Storing> {
    let (store, objects) = (folder.join("storing"), folder.join("objects"));
    let db =
        open(&How { embedded: Some(&store), database: "bench", objects: Some(&objects), ..How::default() })?;
    let begun = Instant::now();
    let created = creates(&db, WRITERS, context.round).await?;
    let sustained = drained(&db, &created, begun).await?;
    let groups = db.groups.take();
    db.chronos.shutdown().await?;
    Ok(Storing { created, sustained, groups })
}

/// Waits until everything is stored; returns how many were created and stored per second altogether.
async fn drained(db: &BenchStore, created: &Rate, begun: Instant) -> Result<f64> {
    let left = db.people.flush(DRAIN).await?.waiting;
    if left > 0 {
        return Err(format!("{left} versions are not stored after {} s", DRAIN.as_secs()).into());
    }
    Ok(created.calls as f64 / begun.elapsed().as_secs_f64())
}

pub(crate) async fn mongo(context: &Context) -> Result<Vec<Line>> {
    let (mut plain, mut storing, mut ceiling, mut sustained) =
        (Series::default(), Series::default(), Vec::new(), Vec::new());
    for round in 0..=context.rounds {
        let baseline = Baseline::connect("creates").await?;
        let db = open(&How { database: baseline.name(), ..How::default() })?;
        let created = creates(&db, WRITERS, context.round).await?;
        let groups = db.groups.take();
        db.chronos.shutdown().await?;
        let (rows, heads) = (
            baseline.newest(&baseline.rows(), doc! {}, PAIRS).await?,
            baseline.newest(&baseline.heads(), doc! {}, PAIRS).await?,
        );
        let again = Baseline::connect("creates_raw").await?;
        again.copy_indexes(&baseline.rows(), &again.rows()).await?;
        again.copy_indexes(&baseline.heads(), &again.heads()).await?;
        baseline.drop().await?;
        let (warm, group) = (rows.len() / 5, watch::usual(&groups));
        again.create_pairs(&rows[..warm], &heads[..warm], group, IN_FLIGHT).await?;
        let rate = again.create_pairs(&rows[warm..], &heads[warm..], group, IN_FLIGHT).await?;
        again.drop().await?;
        let folder = tempfile::tempdir_in(&context.dir)?;
        let baseline = Baseline::connect("creates_storing").await?;
        let db = open(&How { database: baseline.name(), objects: Some(folder.path()), ..How::default() })?;
        let begun = Instant::now();
        let with_objects = creates(&db, WRITERS, context.round).await?;
        let sustained_rate = drained(&db, &with_objects, begun).await?;
        let stored_groups = db.groups.take();
        db.chronos.shutdown().await?;
        baseline.drop().await?;
        if round > 0 {
            plain.add(&created, &groups);
            storing.add(&with_objects, &stored_groups);
            ceiling.push(rate);
            sustained.push(sustained_rate);
        }
    }
    Ok(vec![
        plain
            .line("mongo_creates", &ceiling, targets::MONGO_CREATES)
            .note("payload", "stays in its row")
            .note("ceiling_in_flight", IN_FLIGHT),
        storing
            .line("mongo_creates_storing", &ceiling, targets::MONGO_CREATES)
            .note("payload", "stored meanwhile, one synced file each")
            .note("until_all_stored_per_s", median(&sustained).round()),
    ])
}
