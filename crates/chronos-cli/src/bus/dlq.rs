//! `chronos bus dlq`.

use chronos_db::json;
use chronow::Subscription;
use clap::{Args, Subcommand};
use futures::TryStreamExt as _;

use super::{SubscriptionArg, missing, stored};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::output::Output;

/// Dead letters: messages that failed too often, expired, or could not be read. Each subscription has its
/// own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus dlq list payments fraud
  chronos bus dlq redrive payments fraud")]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    List(ListArgs),
    Redrive(RedriveArgs),
    Purge(PurgeArgs),
}

/// List dead letters, oldest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus dlq list payments fraud")]
struct ListArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
}

/// Give dead letters back to their subscription alone, with a new delivery count.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus dlq redrive payments fraud
  chronos bus dlq redrive payments fraud --oldest 10")]
struct RedriveArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    #[command(flatten)]
    which: WhichArg,
}

/// Remove dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus dlq purge payments fraud --ids ID,ID")]
struct PurgeArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    #[command(flatten)]
    which: WhichArg,
}

/// Which dead letters; all by default.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct WhichArg {
    /// Only this many, the oldest first.
    #[arg(long, value_name = "N")]
    oldest: Option<u64>,
    /// Only these.
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    ids: Option<Vec<String>>,
}

/// Builders have the same methods and no common type.
macro_rules! only {
    ($action:expr, $which:expr) => {
        match ($which.oldest, $which.ids) {
            (Some(letters), _) => $action.oldest(letters),
            (None, Some(ids)) => $action.ids(ids),
            (None, None) => $action,
        }
    };
}

impl DlqArgs {
    pub(super) fn looks(&self) -> bool {
        matches!(self.command, DlqCommand::List(_))
    }
}

pub(super) async fn run(connected: &Connected, args: DlqArgs) -> Result<(), Failure> {
    match args.command {
        DlqCommand::List(args) => list(&existing(connected, &args.subscription).await?).await,
        DlqCommand::Redrive(args) => {
            let subscription = existing(connected, &args.subscription).await?;
            let redriven = only!(subscription.redrive(), args.which).await?;
            Output::new().value(&json!({ "redriven": redriven }))
        }
        DlqCommand::Purge(args) => {
            let subscription = existing(connected, &args.subscription).await?;
            let purged = only!(subscription.purge_dead_letters(), args.which).await?;
            Output::new().value(&json!({ "purged": purged }))
        }
    }
}

/// A misspelt name has no dead letters, and that should not look like good news.
async fn existing(connected: &Connected, of: &SubscriptionArg) -> Result<Subscription, Failure> {
    let subscription = of.of(connected)?;
    match subscription.options().await? {
        Some(_) => Ok(subscription),
        None => Err(missing("subscription", &subscription.name().to_string())),
    }
}

async fn list(subscription: &Subscription) -> Result<(), Failure> {
    let mut out = Output::new();
    let mut letters = subscription.dead_letters().stream();
    while let Some(letter) = letters.try_next().await? {
        let mut line = stored(&letter.message);
        line.insert("reason".to_owned(), letter.reason.into());
        line.insert("deliveries".to_owned(), letter.deliveries.into());
        line.insert("publishedAt".to_owned(), letter.message.published_at.to_string().into());
        line.insert("failedAt".to_owned(), letter.failed_at.to_string().into());
        out.line(&line.into())?;
    }
    out.finish()
}
