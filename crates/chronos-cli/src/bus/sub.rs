//! `chronos bus sub`.

use std::time::Duration;

use chronos_db::json;
use chronow::hot::{DeliverPolicy, SubscriptionOptions};
use clap::{Args, Subcommand};

use super::{SubscriptionArg, TopicArg, missing, parse_filter};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::output::Output;

/// Create, list, pause and remove subscriptions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub create payments fraud --max-deliveries 5
  chronos bus sub list payments")]
pub(crate) struct SubArgs {
    #[command(subcommand)]
    command: SubCommand,
}

#[derive(Debug, Subcommand)]
enum SubCommand {
    Create(Box<CreateArgs>),
    List(ListArgs),
    Delete(DeleteArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
}

/// Create a subscription. If it exists, the options that are given are changed and all others stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub create payments fraud --visibility-ms 60000 \\
    --max-deliveries 5 --backoff-ms 1000,5000,30000
  chronos bus sub create payments large \\
    --filter '{\"payload.amount\": {\"$gte\": 1000}}' --start earliest")]
struct CreateArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    /// How long a message is locked for its consumer, which renews the lock while it works.
    #[arg(long, value_name = "N")]
    visibility_ms: Option<u64>,
    /// Maximum number of deliveries of a message.
    #[arg(long, value_name = "N")]
    max_deliveries: Option<u32>,
    /// Waits before the second, third … delivery; the last one repeats.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    backoff_ms: Option<Vec<u64>>,
    /// Up to this share is added to a wait at random.
    #[arg(long, value_name = "N")]
    jitter_percent: Option<u8>,
    /// Whether messages whose deliveries are used up are kept as dead letters.
    #[arg(long, value_name = "BOOL")]
    dead_letters: Option<bool>,
    /// Only messages whose {payload, headers} match, in MongoDB's syntax.
    #[arg(long, value_name = "FILTER", conflicts_with = "no_filter")]
    filter: Option<String>,
    /// All messages again.
    #[arg(long)]
    no_filter: bool,
    /// Where it begins when it is created: new (default), earliest, a time, or behind the message of an id.
    #[arg(long, value_name = "WHERE", value_parser = DeliverPolicy::parse)]
    start: Option<DeliverPolicy>,
    /// Remove it when no consumer asked for messages for this long; 0 is never.
    #[arg(long, value_name = "N")]
    auto_delete_ms: Option<u64>,
}

/// List the subscriptions of a topic, with their options.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub list payments")]
struct ListArgs {
    #[command(flatten)]
    topic: TopicArg,
}

/// Remove a subscription with everything of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub delete payments fraud")]
struct DeleteArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
}

/// Hand out nothing until the subscription is resumed, to all its consumers everywhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub pause payments fraud")]
struct PauseArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
}

/// Resume after a pause.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus sub resume payments fraud")]
struct ResumeArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
}

impl SubArgs {
    pub(super) fn looks(&self) -> bool {
        matches!(self.command, SubCommand::List(_))
    }
}

pub(super) async fn run(connected: &Connected, args: SubArgs) -> Result<(), Failure> {
    match args.command {
        SubCommand::Create(args) => create(connected, &args).await,
        SubCommand::List(args) => list(connected, &args).await,
        SubCommand::Delete(args) => {
            if !args.subscription.of(connected)?.delete().await? {
                return Err(missing("subscription", &args.subscription.subscription));
            }
            tell(&args.subscription, &json!({ "deleted": true }))
        }
        SubCommand::Pause(args) => {
            args.subscription.of(connected)?.pause().await?;
            tell(&args.subscription, &json!({ "paused": true }))
        }
        SubCommand::Resume(args) => {
            args.subscription.of(connected)?.resume().await?;
            tell(&args.subscription, &json!({ "paused": false }))
        }
    }
}

async fn create(connected: &Connected, args: &CreateArgs) -> Result<(), Failure> {
    let mut ensure = args.subscription.of(connected)?.ensure();
    if let Some(millis) = args.visibility_ms {
        ensure = ensure.visibility(Duration::from_millis(millis));
    }
    if let Some(deliveries) = args.max_deliveries {
        ensure = ensure.max_deliveries(deliveries);
    }
    if let Some(waits) = &args.backoff_ms {
        ensure = ensure.backoff(waits.iter().copied().map(Duration::from_millis));
    }
    if let Some(percent) = args.jitter_percent {
        ensure = ensure.jitter_percent(percent);
    }
    if let Some(keep) = args.dead_letters {
        ensure = ensure.dead_letters(keep);
    }
    if let Some(filter) = &args.filter {
        ensure = ensure.filter(parse_filter(filter)?);
    }
    if args.no_filter {
        ensure = ensure.no_filter();
    }
    if let Some(start) = &args.start {
        ensure = ensure.start(start.clone());
    }
    if let Some(millis) = args.auto_delete_ms {
        ensure = ensure.auto_delete((millis > 0).then(|| Duration::from_millis(millis)));
    }
    let options = ensure.await?;
    tell(&args.subscription, &json!({ "options": options }))
}

async fn list(connected: &Connected, args: &ListArgs) -> Result<(), Failure> {
    let topic = args.topic.of(connected)?;
    if topic.options().await?.is_none() {
        return Err(missing("topic", &args.topic.topic));
    }
    let mut out = Output::new();
    for name in topic.subscriptions().await? {
        // One that was removed meanwhile is none any more.
        let options: Option<SubscriptionOptions> = topic.subscription(&name)?.options().await?;
        if let Some(options) = options {
            out.line(&json!({ "subscription": name, "options": options }))?;
        }
    }
    out.finish()
}

fn tell(of: &SubscriptionArg, what: &chronos_db::Json) -> Result<(), Failure> {
    let mut out = json!({ "topic": of.topic.topic, "subscription": of.subscription });
    if let (Some(out), Some(what)) = (out.as_object_mut(), what.as_object()) {
        out.extend(what.clone());
    }
    Output::new().value(&out)
}
