//! `chronos worker`.

use std::time::Duration;

use chronos_db::{Clock as _, Collection, SystemClock, json};
use clap::Args;
use tokio::time::Instant;

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::{Output, note};
use crate::stop::Stop;

/// Noted objects younger than this may belong to a write under way.
const YOUNG_MILLIS: i64 = 3_600_000;
/// Where versions are not kept, superseded rows stay so long: they still decide races.
const GRACE: Duration = Duration::from_secs(300);
/// One round waits so long for the storage.
const ROUND: Duration = Duration::from_secs(30);
/// Between two rounds of `--once`, while versions are still left to the process that wrote them.
const AGAIN: Duration = Duration::from_millis(250);

/// Store what waits to be stored and remove what is left over, until it is stopped. Any number of workers may run.
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
    let collection = opened.collection(&args.of.collection)?;
    let left = if args.once {
        once(&collection, Duration::from_secs(args.limit)).await?
    } else {
        until_stopped(&collection, Duration::from_secs(args.every)).await?
    };
    opened.waiting = left > 0;
    opened.close().await?;
    if args.once && left > 0 {
        note(&format!("error: {left} versions of `{}` still wait to be stored", collection.name()));
        return Err(Failure::Reported);
    }
    Ok(())
}

/// What one round left and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    waiting: u64,
    orphans: u64,
    trimmed: u64,
}

impl Round {
    fn print(self) -> Result<(), Failure> {
        let mut out = Output::new();
        out.line(&json!({ "waiting": self.waiting, "orphans": self.orphans, "trimmed": self.trimmed }))?;
        out.finish()
    }
}

/// Removes what is left over; `waiting` versions wait to be stored.
async fn tidy(collection: &Collection, waiting: u64) -> Result<Round, Failure> {
    let orphans = collection.collect_orphans(SystemClock.now().plus_millis(-YOUNG_MILLIS)).await?;
    let trimmed = collection.trim(GRACE).await?;
    Ok(Round { waiting, orphans, trimmed })
}

async fn once(collection: &Collection, limit: Duration) -> Result<u64, Failure> {
    let end = Instant::now() + limit;
    let waiting = loop {
        let waiting = collection.drain(end.saturating_duration_since(Instant::now())).await?;
        if waiting == 0 || Instant::now() + AGAIN >= end {
            break waiting;
        }
        tokio::time::sleep(AGAIN).await;
    };
    tidy(collection, waiting).await?.print()?;
    Ok(waiting)
}

async fn round(collection: &Collection) -> Result<Round, Failure> {
    let waiting = collection.drain(ROUND).await?;
    tidy(collection, waiting).await
}

async fn until_stopped(collection: &Collection, every: Duration) -> Result<u64, Failure> {
    let mut stop = Stop::listen();
    let mut told = None;
    loop {
        let done = tokio::select! {
            done = round(collection) => done?,
            () = stop.comes() => return Ok(0),
        };
        // A quiet worker prints one line, not one a round.
        if told.replace(done) != Some(done) || done.orphans + done.trimmed > 0 {
            done.print()?;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.comes() => return Ok(done.waiting),
        }
    }
}
