//! `chronos counters`.

use chronos_db::Collection;
use chronos_db::counters::Period;
use clap::{Args, Subcommand};

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::{Globals, Session};
use crate::output::Output;
use crate::stderr::note;

/// Count what was created, updated and deleted: in all, by rules, by values and by days, weeks or months.
///
/// Counts are exact right after a write. `chronos worker` keeps them at hand.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters get -c users
  chronos counters unique -c events --rule logins --property userId --limit 10
  chronos counters buckets -c events --period week")]
pub(crate) struct CountersArgs {
    #[command(subcommand)]
    command: CountersCommand,
}

#[derive(Debug, Subcommand)]
enum CountersCommand {
    Get(GetArgs),
    Unique(UniqueArgs),
    Buckets(BucketsArgs),
    Reset(ResetArgs),
    Recount(RecountArgs),
}

/// Print the totals of a collection, and of every counter rule.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters get -c users")]
struct GetArgs {
    #[command(flatten)]
    of: CollectionArg,
}

/// Print the values that a property of `countUnique` had, one per line, the most frequent first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters unique -c events --rule logins --property userId --limit 10")]
struct UniqueArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// The counter rule.
    #[arg(long, value_name = "RULE")]
    rule: String,
    /// One of the properties of its `countUnique`.
    #[arg(long, value_name = "PROPERTY")]
    property: String,
    /// At most this many values.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Print what was counted in each day, week or month that `retention.counters` keeps, one per line.
///
/// Days are UTC, weeks begin on Monday; changes count at their own time, also imported ones.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters buckets -c events --period day
  chronos counters buckets -c events --period month")]
struct BucketsArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// day, week or month.
    #[arg(long, value_name = "PERIOD")]
    period: Period,
}

/// Set all counters of a collection to zero: they count from now on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters reset -c users --confirm")]
struct ResetArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Yes, forget what was counted.
    #[arg(long)]
    confirm: bool,
}

/// Count a collection anew from its versions, by the rules of the configuration. Prints the totals;
/// `corrected` says whether anything was different before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos counters recount -c users")]
struct RecountArgs {
    #[command(flatten)]
    of: CollectionArg,
}

pub(crate) async fn run(globals: &Globals, args: CountersArgs) -> Result<(), Failure> {
    match args.command {
        CountersCommand::Get(args) => {
            let (session, collection) = open(globals, &args.of).await?;
            let totals = collection.counters().totals().await?;
            session.close().await?;
            Output::new().value(&totals.to_json())
        }
        CountersCommand::Unique(args) => {
            let (session, collection) = open(globals, &args.of).await?;
            let values = collection.counters().unique(args.rule, args.property).limit(args.limit).await?;
            session.close().await?;
            lines(values.iter().map(|value| value.to_json()))
        }
        CountersCommand::Buckets(args) => {
            let (session, collection) = open(globals, &args.of).await?;
            let buckets = collection.counters().buckets(args.period).await?;
            session.close().await?;
            lines(buckets.iter().map(|bucket| bucket.to_json()))
        }
        CountersCommand::Reset(args) => {
            if !args.confirm {
                return Err(Failure::wrong(
                    "a reset forgets what was counted; say --confirm if that is meant",
                ));
            }
            let (session, collection) = open(globals, &args.of).await?;
            collection.counters().reset().await?;
            let totals = collection.counters().totals().await?;
            session.close().await?;
            Output::new().value(&totals.to_json())
        }
        CountersCommand::Recount(args) => {
            let (session, collection) = open(globals, &args.of).await?;
            let counted = collection.counters().recount().await?;
            session.close().await?;
            if counted.damaged_count > 0 {
                let name = collection.name();
                note(&format!(
                    "warning: {} versions of `{name}` could not be read; `verify` names them",
                    counted.damaged_count
                ));
            }
            Output::new().value(&counted.to_json())
        }
    }
}

async fn open(globals: &Globals, of: &CollectionArg) -> Result<(Session, Collection), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&of.collection).await?;
    Ok((session, collection))
}

fn lines(values: impl Iterator<Item = chronos_db::Json>) -> Result<(), Failure> {
    let mut out = Output::new();
    for value in values {
        out.line(&value)?;
    }
    out.finish()
}
