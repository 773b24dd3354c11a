//! `chronos worker`.

use std::time::Duration;

use chronos_db::{Collection, FlushReport, json};
use clap::Args;
use tokio::time::Instant;

use crate::args::CollectionArg;
use crate::failure::{Failure, one_line};
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;
use crate::stop::Stop;

/// Noted objects younger than this may belong to a write under way.
const YOUNG: Duration = Duration::from_secs(3_600);
/// Where versions are not kept, superseded rows stay so long: they still decide races.
const GRACE: Duration = Duration::from_secs(300);
/// One round waits so long for the storage.
const ROUND: Duration = Duration::from_secs(30);
/// Between two rounds of `--once`, while versions are still left to the process that wrote them.
const AGAIN: Duration = Duration::from_millis(250);

/// Store what waits to be stored, count what was written, and remove what is left over, until it is stopped.
/// Any number of workers may run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos worker -c users --once
  chronos worker -c users --every 5      # until Ctrl-C")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// End when nothing waits any more; the exit code is 1 if after --limit something still does.
    #[arg(long)]
    once: bool,
    /// Seconds between two rounds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// With --once: wait at most so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "once")]
    limit: u64,
}

pub(crate) async fn run(globals: &Globals, args: WorkerArgs) -> Result<(), Failure> {
    // One that stays waits for the store to come into being, too.
    let mut opened = if args.once { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let name = &args.of.collection;
    let collection = if args.once { opened.existing(name).await? } else { opened.collection(name)? };
    if !args.once && !collection.exists().await? {
        note(&format!("nothing was ever written to a collection `{name}` yet"));
    }
    let left = if args.once {
        once(&collection, Duration::from_secs(args.limit)).await?
    } else {
        until_stopped(&collection, Duration::from_secs(args.every)).await?
    };
    opened.waiting = left.waiting > 0;
    opened.close().await?;
    if args.once && left.waiting > 0 {
        note(&format!("error: {} versions of `{}` still wait to be stored", left.waiting, collection.name()));
        name_failing(&left);
        return Err(Failure::Reported);
    }
    Ok(())
}

/// Failing versions that are named on stderr after a round.
const NAMED: usize = 10;

/// Names versions that could not be stored, and why.
fn name_failing(report: &FlushReport) {
    for version in report.failing.iter().take(NAMED) {
        let (collection, id, ov, tries) = (&version.collection, version.id, version.ov, version.tries);
        let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
        note(&format!(
            "version {ov} of {id} in `{collection}` was tried {times}: {}",
            one_line(version.error.message())
        ));
    }
    if let Some(more) = report.failed.checked_sub(NAMED as u64).filter(|more| *more > 0) {
        note(&format!("… and {more} more"));
    }
}

/// What one round left and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    waiting: u64,
    /// Versions that were tried without success.
    failing: u64,
    orphans: u64,
    /// Objects of erased items that had come back.
    erased: u64,
    /// Notes of objects that say nothing.
    malformed: u64,
    trimmed: u64,
}

impl Round {
    fn print(self) -> Result<(), Failure> {
        let mut out = Output::new();
        out.line(&json!({ "waiting": self.waiting, "failing": self.failing, "orphans": self.orphans, "erased": self.erased, "trimmed": self.trimmed }))?;
        if self.malformed > 0 {
            note(&format!("{} notes of stored objects name none; `verify` tells which", self.malformed));
        }
        out.finish()
    }
}

/// Takes what was written into the counters, and names rows that cannot be read.
async fn count(collection: &Collection) -> Result<(), Failure> {
    let counted = collection.counters().follow().await?;
    for row in counted.damaged.iter().take(NAMED) {
        let name = collection.name();
        note(&format!(
            "row {} (cv {}) of `{name}` is damaged and not counted: {}",
            row.row,
            row.cv,
            one_line(&row.message)
        ));
    }
    if let Some(more) = counted.damaged_count.checked_sub(NAMED as u64).filter(|more| *more > 0) {
        note(&format!("… and {more} more"));
    }
    Ok(())
}

/// Counts, and removes what is left over; `report` says what waits to be stored.
async fn collect_garbage(collection: &Collection, report: &FlushReport) -> Result<Round, Failure> {
    let collected = collection.collect_orphans(YOUNG).await?;
    count(collection).await?;
    let trimmed = collection.trim(GRACE).await?;
    let (orphans, erased, malformed) = (collected.orphans, collected.erased, collected.malformed);
    Ok(Round { waiting: report.waiting, failing: report.failed, orphans, erased, malformed, trimmed })
}

async fn once(collection: &Collection, limit: Duration) -> Result<FlushReport, Failure> {
    let end = Instant::now() + limit;
    let report = loop {
        let report = collection.flush(end.saturating_duration_since(Instant::now())).await?;
        if report.waiting == 0 || Instant::now() + AGAIN >= end {
            break report;
        }
        tokio::time::sleep(AGAIN).await;
    };
    collect_garbage(collection, &report).await?.print()?;
    Ok(report)
}

/// What a round came to.
struct Ended {
    report: FlushReport,
    /// None if cleaning up failed in a way that passes: the next round tries again.
    collected: Option<Round>,
}

async fn round(collection: &Collection) -> Result<Ended, Failure> {
    let report = collection.flush(ROUND).await?;
    let collected = match collect_garbage(collection, &report).await {
        Ok(round) => Some(round),
        Err(Failure::Error(error)) if error.is_retryable() => {
            note(&format!("cleaning up `{}`: {}", collection.name(), one_line(error.message())));
            None
        }
        Err(failure) => return Err(failure),
    };
    Ok(Ended { report, collected })
}

async fn until_stopped(collection: &Collection, every: Duration) -> Result<FlushReport, Failure> {
    let mut stop = Stop::listen();
    let mut told = None;
    loop {
        let Ended { report, collected } = tokio::select! {
            done = round(collection) => done?,
            () = stop.comes() => return Ok(FlushReport::default()),
        };
        // A quiet worker prints one line, not one a round.
        if let Some(done) = collected
            && (told.replace(done) != Some(done) || done.orphans + done.erased + done.trimmed > 0)
        {
            done.print()?;
            name_failing(&report);
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.comes() => return Ok(report),
        }
    }
}
