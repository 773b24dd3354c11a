//! `chronos fallback`.

use std::time::Duration;

use chronos_db::{FailedQueue, ListOperations};
use clap::{Args, Subcommand};
use futures::StreamExt as _;

use crate::failure::{Failure, Failures};
use crate::open::{Globals, Session};
use crate::output::Output;

/// Look at writes that wait because they failed in a way that passes, and at those that were given up. A
/// worker carries out what waits.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos fallback stats
  chronos fallback list
  chronos fallback dead
  chronos fallback retry req_1767225600000_64f0c0ffee64f0c0ffee64f0
  chronos fallback cancel req_1767225600000_64f0c0ffee64f0c0ffee64f0")]
pub(crate) struct FallbackArgs {
    #[command(subcommand)]
    command: FallbackCommand,
}

#[derive(Debug, Subcommand)]
enum FallbackCommand {
    /// Count what waits and what was given up.
    #[command(after_help = "Examples:\n  chronos fallback stats")]
    Stats,
    /// List what waits, the oldest first, one per line.
    #[command(after_help = "Examples:\n  chronos fallback list -c users")]
    List(ListArgs),
    /// List the dead letters: what was given up, one per line.
    #[command(after_help = "Examples:\n  chronos fallback dead --limit 10")]
    Dead(ListArgs),
    /// Make an operation due at once: one that waits, or a dead letter.
    #[command(after_help = "Examples:\n  chronos fallback retry req_1767225600000_64f0c0ffee64f0c0ffee64f0")]
    Retry(OperationArg),
    /// Remove an operation that waits, or a dead letter.
    #[command(after_help = "Examples:\n  chronos fallback cancel req_1767225600000_64f0c0ffee64f0c0ffee64f0")]
    Cancel(OperationArg),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only those of this collection.
    #[arg(short, long, value_name = "COLL")]
    collection: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, Args)]
struct OperationArg {
    /// The `requestId` of the operation.
    #[arg(value_name = "ID")]
    request_id: String,
}

pub(crate) async fn run(globals: &Globals, args: FallbackArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let done = act(&session, args.command).await;
    // A document store that is away takes its time to be closed, and nothing was written to it.
    let Session { chronos, .. } = session;
    let closed = chronos.shutdown_within(Duration::from_millis(500)).await;
    done.and(closed.map(drop).map_err(Failure::from))
}

async fn act(session: &Session, command: FallbackCommand) -> Result<(), Failure> {
    let fallback = session.chronos.fallback()?;
    match command {
        FallbackCommand::Stats => {
            let stats = fallback.stats().await?;
            Output::new().value(&stats.to_json())?;
            name_failed(&stats.failed)
        }
        FallbackCommand::List(args) => list(fallback.list(), args).await,
        FallbackCommand::Dead(args) => list(fallback.dead(), args).await,
        FallbackCommand::Retry(args) => {
            Output::new().value(&fallback.retry(args.request_id).await?.to_json())
        }
        FallbackCommand::Cancel(args) => {
            let mut cancelled = fallback.cancel(args.request_id).await?.to_json();
            cancelled["cancelled"] = true.into();
            Output::new().value(&cancelled)
        }
    }
}

async fn list(mut list: ListOperations, args: ListArgs) -> Result<(), Failure> {
    if let Some(collection) = args.collection {
        list = list.collection(collection);
    }
    let mut found = list.limit(args.limit.unwrap_or(u64::MAX)).stream();
    let (mut out, mut failed) = (Output::new(), Vec::new());
    while let Some(found) = found.next().await {
        match found {
            Ok(operation) => out.line(&operation.to_json())?,
            Err(queue) => failed.push(queue),
        }
    }
    out.finish()?;
    name_failed(&failed)
}

/// What others said is printed; that it is not all is a failure.
fn name_failed(failed: &[FailedQueue]) -> Result<(), Failure> {
    let mut failures = Failures::default();
    failed.iter().for_each(|queue| failures.say(&queue.to_string()));
    failures.end()
}
