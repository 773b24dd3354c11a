//! What counter rules cost who writes, and how fast the worker follows.

use std::time::{Duration, Instant};

use chronos_db::Route;

use super::creates::creates;
use crate::baseline::mongo::Baseline;
use crate::bench_store::{BenchStore, How, open};
use crate::measure::median;
use crate::report::Line;
use crate::stored::COLLECTION;
use crate::{Context, Result, targets};

const RULES: usize = 20;
const WRITERS: usize = 64;
/// How long the follower may take.
const FOLLOW: Duration = Duration::from_secs(300);

/// The figures of one kind of store, round by round.
#[derive(Debug, Default)]
struct Series {
    counted: Vec<f64>,
    plain: Vec<f64>,
    followed: Vec<f64>,
}

impl Series {
    fn lines(&self, kind: &str) -> [Line; 2] {
        let (counted, plain) = (median(&self.counted), median(&self.plain));
        [
            Line::against(
                format!("{kind}_creates_counted"),
                "creates/s",
                counted,
                plain,
                Some(targets::COUNTED_CREATES),
            )
            .note("rules", RULES)
            .note("writers", WRITERS),
            Line::against(
                format!("{kind}_follower"),
                "versions/s",
                median(&self.followed),
                counted,
                Some(targets::FOLLOWER),
            )
            .note("rules", RULES)
            .note("ceiling", "creates with these rules"),
        ]
    }
}

/// Follows what was created; returns how many versions a second went through.
async fn follow(db: &BenchStore, created: u64) -> Result<f64> {
    let worker = db.chronos.worker().only(Route::runtime().tenant("default").collection(COLLECTION))?;
    let begun = Instant::now();
    let report = worker.once(FOLLOW).await;
    let per_second = created as f64 / begun.elapsed().as_secs_f64();
    let counted = db.people.counters().totals().await?;
    if report.is_finished() && counted.counts.created == created {
        Ok(per_second)
    } else {
        Err(format!("of {created} versions {} were counted: {}", counted.counts.created, report.to_json())
            .into())
    }
}

async fn round(context: &Context, how: &How<'_>, series: &mut Series, counts: bool) -> Result<()> {
    let db = open(how)?;
    let created = creates(&db, WRITERS, context.round).await?;
    if how.rules > 0 {
        let followed = follow(&db, created.calls).await?;
        if counts {
            series.counted.push(created.per_second);
            series.followed.push(followed);
        }
    } else if counts {
        series.plain.push(created.per_second);
    }
    Ok(db.chronos.shutdown().await?)
}

pub(crate) async fn rules(context: &Context) -> Result<Vec<Line>> {
    let (mut embedded, mut mongo) = (Series::default(), Series::default());
    // The first round warms up.
    for number in 0..=context.rounds {
        // By turns, each first in every other round.
        let both = if number % 2 == 0 { [RULES, 0] } else { [0, RULES] };
        for rules in both {
            let folder = tempfile::tempdir_in(&context.dir)?;
            let how = How { embedded: Some(folder.path()), database: "bench", rules, ..How::default() };
            round(context, &how, &mut embedded, number > 0).await?;
            let baseline = Baseline::connect("counters").await?;
            let how = How { database: baseline.name(), rules, ..How::default() };
            round(context, &how, &mut mongo, number > 0).await?;
            baseline.drop().await?;
        }
    }
    Ok([embedded.lines("embedded"), mongo.lines("mongo")].into_iter().flatten().collect())
}
