//! Reads of one item: the latest version, and the past.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use chronos_db::{ItemId, Timestamp};

use crate::baseline::mongo::Baseline;
use crate::bench_store::{BenchStore, How, open};
use crate::measure::{Comparison, Lcg, Rate, compare, median, rate};
use crate::report::Line;
use crate::stored::{EPOCH, Stored, person};
use crate::{Context, Result, targets};

/// Items of a collection that is read at random.
const ITEMS: usize = 2_000;
/// Readers at once: one shows latency, many show throughput.
const READERS: [usize; 2] = [1, 16];

pub(crate) fn item(id: ObjectId) -> Result<ItemId> {
    Ok(id.to_hex().parse()?)
}

async fn reading(db: &BenchStore, ids: &Arc<Vec<ItemId>>, readers: usize, round: Duration) -> Result<Rate> {
    let (people, ids) = (db.people.clone(), Arc::clone(ids));
    let seen = rate(readers, round, move |task, call| {
        let (people, id) = (people.clone(), ids[Lcg(call.wrapping_mul(31) + task as u64).below(ids.len())]);
        async move { people.get(&id).await?.map(drop).ok_or_else(|| "an item is missing".into()) }
    });
    all_well(seen.await?)
}

fn all_well(rate: Rate) -> Result<Rate> {
    if rate.failed > 0 {
        Err(format!("{} of {} reads failed", rate.failed, rate.calls).into())
    } else {
        Ok(rate)
    }
}

async fn finding(
    baseline: &Baseline,
    ids: &Arc<Vec<ObjectId>>,
    readers: usize,
    round: Duration,
) -> Result<Rate> {
    let (heads, ids) = (baseline.heads(), Arc::clone(ids));
    let seen = rate(readers, round, move |task, call| {
        let (heads, id) = (heads.clone(), ids[Lcg(call.wrapping_mul(31) + task as u64).below(ids.len())]);
        async move {
            let found: Option<Document> = heads.find_one(doc! { "_id": id }).await?;
            found.map(drop).ok_or_else(|| "a head is missing".into())
        }
    });
    all_well(seen.await?)
}

pub(crate) async fn latest(context: &Context) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for shadow in [true, false] {
        let (baseline, folder) = (Baseline::connect("latest").await?, tempfile::tempdir_in(&context.dir)?);
        let cache = shadow.then_some(0);
        let db = open(&How {
            database: baseline.name(),
            objects: Some(folder.path()),
            shadow,
            cache,
            ..How::default()
        })?;
        let created = (0..ITEMS).map(|number| {
            let people = db.people.clone();
            tokio::spawn(async move { people.create(person(number, 50)).await })
        });
        let mut ids = Vec::new();
        for create in created.collect::<Vec<_>>() {
            ids.push(create.await??.id);
        }
        db.people.flush(Duration::from_secs(60)).await?;
        let raw_ids =
            ids.iter().map(|id| Ok(ObjectId::parse_str(id.to_string())?)).collect::<Result<Vec<_>>>()?;
        let (ids, raw_ids) = (Arc::new(ids), Arc::new(raw_ids));
        for readers in READERS {
            let seen = compare(
                context,
                async || Ok(reading(&db, &ids, readers, context.round).await?.per_second),
                async || Ok(finding(&baseline, &raw_ids, readers, context.round).await?.per_second),
            );
            let seen: Comparison = seen.await?;
            let (ours, ceiling) = seen.medians();
            let name = if shadow { "shadow" } else { "cached" };
            lines.push(
                Line::against(
                    format!("mongo_latest_read_{name}_{readers}"),
                    "reads/s",
                    ours,
                    ceiling,
                    Some(targets::LATEST_READ),
                )
                .note("readers", readers)
                .note("ratio_of_rounds", seen.spread()),
            );
        }
        db.chronos.shutdown().await?;
        baseline.drop().await?;
    }
    Ok(lines)
}

/// A loaded collection: `one` item with this many versions, and others with ten each around it.
struct Past {
    baseline: Baseline,
    db: BenchStore,
    one: ItemId,
    versions: i64,
}

impl Past {
    async fn load(versions: i64, rows: i64) -> Result<Self> {
        let baseline = Baseline::connect("past").await?;
        let db = open(&How { database: baseline.name(), cache: Some(0), ..How::default() })?;
        db.people.ensure_index("email").await?;
        let one = ObjectId::new();
        let others = (rows - versions).max(0) / 10;
        let ids: Vec<ObjectId> = (0..others).map(|_| ObjectId::new()).collect();
        let version = |number: i64| {
            let (id, ov, created) = match number - versions {
                own if own < 0 => (one, number, 0),
                other => {
                    let (nth, ov) = (other / 10, other % 10);
                    (ids[usize::try_from(nth)?], ov, versions + nth * 10)
                }
            };
            Stored::new(id, ov, number, created, person(usize::try_from(number)?, 50))
        };
        let all = versions + others * 10;
        baseline.load(&baseline.rows(), (0..all).map(|number| Ok(version(number)?.row()))).await?;
        let newest = std::iter::once(versions - 1).chain((0..others).map(|nth| versions + nth * 10 + 9));
        baseline.load(&baseline.heads(), newest.map(|number| Ok(version(number)?.head(true)))).await?;
        baseline.set_counter(all - 1).await?;
        Ok(Self { baseline, db, one: item(one)?, versions })
    }

    /// Reads the item at random times of its past, or its latest version.
    async fn read(&self, past: bool, round: Duration) -> Result<Rate> {
        let (people, id, versions) = (self.db.people.clone(), self.one, usize::try_from(self.versions)?);
        let seen = rate(1, round, move |task, call| {
            let people = people.clone();
            async move {
                let mut get = people.get(&id);
                let ov = i64::try_from(Lcg(call.wrapping_mul(17) + task as u64).below(versions))?;
                if past {
                    get = get.as_of(Timestamp::from_millis(EPOCH + ov));
                }
                let seen = get.await?.ok_or("the item is missing")?;
                if past && seen.ov != ov {
                    Err(format!("version {} was read instead of {ov}", seen.ov).into())
                } else {
                    Ok(())
                }
            }
        });
        all_well(seen.await?)
    }

    async fn end(self) -> Result<()> {
        self.db.chronos.shutdown().await?;
        self.baseline.drop().await
    }
}

pub(crate) async fn as_of(context: &Context) -> Result<Vec<Line>> {
    let (rows, many) = if context.large { (1_000_000, 100_000) } else { (50_000, 10_000) };
    let mut lines = Vec::new();
    let (small, large) = (Past::load(1_000, 2_000).await?, Past::load(1_000, rows).await?);
    let seen = compare(
        context,
        async || Ok(large.read(true, context.round).await?.per_second),
        async || Ok(large.read(false, context.round).await?.per_second),
    );
    let seen = seen.await?;
    let (ours, ceiling) = seen.medians();
    lines.push(
        Line::against("as_of_read", "reads/s", ours, ceiling, Some(targets::AS_OF_READ))
            .note("versions", 1_000)
            .note("rows", rows)
            .note("ceiling", "latest read, shadow in the head")
            .note("ratio_of_rounds", seen.spread()),
    );
    let seen = compare(
        context,
        async || Ok(large.read(true, context.round).await?.per_second),
        async || Ok(small.read(true, context.round).await?.per_second),
    );
    let seen = seen.await?;
    let (ours, ceiling) = seen.medians();
    lines.push(
        Line::against("as_of_read_flat", "reads/s", ours, ceiling, Some(targets::AS_OF_FLAT))
            .note("rows", rows)
            .note("ceiling_rows", 2_000)
            .note("ratio_of_rounds", seen.spread()),
    );
    small.end().await?;
    large.end().await?;
    let (few, many_versions) = (Past::load(10, 2_000).await?, Past::load(many, many).await?);
    let (mut ours, mut ceiling) = (Vec::new(), Vec::new());
    for round in 0..=context.rounds {
        let (with_many, with_few) = (
            many_versions.read(true, context.round).await?.p99(),
            few.read(true, context.round).await?.p99(),
        );
        if round > 0 {
            ours.push(with_many);
            ceiling.push(with_few);
        }
    }
    lines.push(
        Line::against("as_of_p99", "µs", median(&ours), median(&ceiling), Some(targets::AS_OF_P99))
            .note("versions", many)
            .note("ceiling_versions", 10),
    );
    few.end().await?;
    many_versions.end().await?;
    Ok(lines)
}
