//! `chronos worker`.

use std::time::Duration;

use chronos_db::{FailedJob, Json, Worker, WorkerReport};
use clap::Args;

use crate::failure::{Failure, one_line};
use crate::metrics::MetricsArg;
use crate::open::{Globals, Session};
use crate::output::Output;
use crate::stderr::note;
use crate::stop::Stop;

/// After so long without less to do a worker that was to come to an end gives up.
const IDLE: Duration = Duration::from_secs(30);
/// Failing versions, damaged rows and failed jobs that are named on stderr after a round.
const NAMED: usize = 10;

/// Do what needs a clock for every collection, until it is stopped: store what waits to be stored, count what
/// was written, remove what is left over or has ended. Any number of workers may run.
///
/// Workers share the collections of all entries of the configuration by leases. What one that dies was at is
/// taken over after 15 seconds. What fails is named once, tried again after growing waits, and stops nothing
/// else. Prints one line of JSON a round in which something changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos worker                         # everything, until Ctrl-C or SIGTERM
  chronos worker --once
  chronos worker -c users --every 5
  chronos worker --metrics 127.0.0.1:9464")]
pub(crate) struct WorkerArgs {
    /// Work on this collection alone, where the options lead to.
    #[arg(short, long, value_name = "COLL")]
    collection: Option<String>,
    /// End when nothing is left to do, or when for half a minute what waits has not become less; the exit code is 1
    /// if something is left, or if something failed.
    #[arg(long)]
    once: bool,
    /// Seconds between two rounds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// With --once: go on for at most so many seconds, whether or not it gets on.
    #[arg(long, value_name = "SECONDS", requires = "once")]
    limit: Option<u64>,
    #[command(flatten)]
    metrics: MetricsArg,
}

pub(crate) async fn run(globals: &Globals, args: WorkerArgs) -> Result<(), Failure> {
    args.metrics.serve()?;
    // One that stays waits for the store to come into being, too.
    let mut session = if args.once { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let worker = worker(&session, &args).await?;
    if args.once {
        let report = match args.limit {
            Some(seconds) => worker.once(Duration::from_secs(seconds)).await,
            None => worker.until_done(IDLE).await,
        };
        session.waiting = report.amounts["waiting"] > 0;
        session.close().await?;
        let mut out = Output::new();
        out.line(&report.to_json())?;
        out.finish()?;
        return end(&report, args.collection.as_deref());
    }
    until_stopped(&worker, Duration::from_secs(args.every)).await?;
    session.close().await
}

async fn worker(session: &Session, args: &WorkerArgs) -> Result<Worker, Failure> {
    let worker = session.chronos.worker();
    let Some(name) = &args.collection else { return Ok(worker) };
    if args.once {
        session.existing(name).await?;
    } else if !session.collection(name)?.exists().await? {
        note(&format!("nothing was ever written to a collection `{name}` yet"));
    }
    Ok(worker.only(session.route_to(name))?)
}

/// What is left is an error of a worker that was to end when nothing is.
fn end(report: &WorkerReport, collection: Option<&str>) -> Result<(), Failure> {
    let waiting = report.amounts["waiting"];
    let of = collection.map(|name| format!(" of `{name}`")).unwrap_or_default();
    if waiting > 0 {
        note(&format!("error: {waiting} versions{of} still wait to be stored"));
    } else if report.amounts["queued"] > 0 {
        note(&format!("error: {} writes still wait in the fallback queue", report.amounts["queued"]));
    } else if report.failure_count > 0 {
        note(&format!("error: {} jobs failed", report.failure_count));
    } else if !report.is_finished() {
        note("error: some work is left: other workers hold it, or the time ran out");
    }
    name_versions_and_rows(report);
    name_jobs(report, |_| true);
    let is_done = waiting == 0 && report.failure_count == 0 && report.is_finished();
    if is_done { Ok(()) } else { Err(Failure::Reported) }
}

/// Names jobs that failed.
fn name_jobs(report: &WorkerReport, is_news: impl Fn(&FailedJob) -> bool) {
    for failure in report.failures.iter().filter(|failure| is_news(failure)).take(NAMED) {
        note(&format!("{} for {}: {}", failure.job, failure.target, one_line(&failure.error.to_string())));
    }
}

/// Names versions that could not be stored, and rows that cannot be read.
fn name_versions_and_rows(report: &WorkerReport) {
    for version in report.failing.iter().take(NAMED) {
        let (collection, id, ov, tries) = (&version.collection, version.id, version.ov, version.tries);
        let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
        note(&format!(
            "version {ov} of {id} in `{collection}` was tried {times}: {}",
            one_line(version.error.message())
        ));
    }
    let more = (report.amounts["failing"]).saturating_sub(report.failing.len().min(NAMED) as u64);
    if more > 0 && !report.failing.is_empty() {
        note(&format!("… and {more} more"));
    }
    for (collection, row) in report.damaged.iter().take(NAMED) {
        note(&format!(
            "row {} (cv {}) of {collection} is damaged and not counted: {}",
            row.row,
            row.cv,
            one_line(&row.message)
        ));
    }
    if report.amounts["malformed"] > 0 {
        let malformed = report.amounts["malformed"];
        note(&format!("{malformed} notes of stored objects name none; `verify` tells which"));
    }
}

/// What a quiet worker does not repeat: what waits. What failed is left out, as it is not tried each round.
fn state_of(report: &WorkerReport) -> Json {
    let mut state = report.to_json();
    for name in ["collections", "counted", "failed"] {
        state[name] = 0.into();
    }
    state
}

async fn until_stopped(worker: &Worker, every: Duration) -> Result<(), Failure> {
    let mut stop = Stop::listen();
    let (mut last_state, mut printed) = (None, Ok(()));
    let tell = |report: WorkerReport| {
        let state = state_of(&report);
        let has_removed = [
            "orphans",
            "erased",
            "certified",
            "trimmed",
            "pruned",
            "processed",
            "shrunk",
            "messages",
            "leases",
        ]
        .iter()
        .any(|name| report.amounts[name] > 0);
        // A quiet worker prints one line, not one a round.
        if (last_state.replace(state.clone()) != Some(state) || has_removed) && printed.is_ok() {
            printed = print(&report);
            name_versions_and_rows(&report);
        }
        name_jobs(&report, |failure| failure.tries == 1);
    };
    worker.run(every, stop.comes(), tell).await;
    printed
}

fn print(report: &WorkerReport) -> Result<(), Failure> {
    let mut out = Output::new();
    out.line(&report.to_json())?;
    out.finish()
}
