//! `chronos bus topic`.

use std::time::Duration;

use chronos_db::{Json, json};
use chronow::Topic;
use chronow::hot::{DiscardPolicy, TopicOptions};
use clap::{Args, Subcommand, ValueEnum};

use super::{TopicArg, missing};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::output::Output;

/// Create, list and remove topics.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus topic create payments --max-len 1000000
  chronos bus topic list")]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    Create(CreateArgs),
    List(ListArgs),
    Delete(DeleteArgs),
}

/// Create a topic. If it exists, the options that are given are changed and all others stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus topic create payments
  chronos bus topic create ticks --shards 4 --max-len 1000000 \\
    --overflow drop-oldest")]
struct CreateArgs {
    #[command(flatten)]
    topic: TopicArg,
    /// Number of streams the messages are spread over; only used when the topic is created. Messages of one key stay in one.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Maximum number of messages held that a subscription still needs.
    #[arg(long, value_name = "N")]
    max_len: Option<u64>,
    /// What happens to a message beyond --max-len.
    #[arg(long, value_name = "HOW")]
    overflow: Option<Full>,
    /// Messages that no handler started after this long go to the dead letters; 0 is never.
    #[arg(long, value_name = "N")]
    ttl_ms: Option<u64>,
    /// How long a message's `id` is remembered, to recognise duplicates.
    #[arg(long, value_name = "N")]
    dedup_window_ms: Option<u64>,
    /// Keep a copy of every message in the messaging database, for `replay`.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    warm: Option<bool>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Full {
    /// Publishing fails.
    Reject,
    /// The oldest messages go.
    DropOldest,
}

/// List the topics, with their options.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus topic list")]
struct ListArgs {}

/// Remove a topic with its subscriptions, messages and dead letters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus topic delete payments")]
struct DeleteArgs {
    #[command(flatten)]
    topic: TopicArg,
}

impl TopicArgs {
    pub(super) fn looks(&self) -> bool {
        matches!(self.command, TopicCommand::List(_))
    }
}

pub(super) async fn run(connected: &Connected, args: TopicArgs) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Create(args) => create(&args.topic.of(connected)?, &args).await,
        TopicCommand::List(_) => list(connected).await,
        TopicCommand::Delete(args) => {
            if !args.topic.of(connected)?.delete().await? {
                return Err(missing("topic", &args.topic.topic));
            }
            Output::new().value(&json!({ "topic": args.topic.topic, "deleted": true }))
        }
    }
}

async fn create(topic: &Topic, args: &CreateArgs) -> Result<(), Failure> {
    let mut ensure = topic.ensure();
    if let Some(shards) = args.shards {
        ensure = ensure.shards(shards);
    }
    if let Some(messages) = args.max_len {
        ensure = ensure.max_len(messages);
    }
    if let Some(full) = args.overflow {
        ensure = ensure.overflow(match full {
            Full::Reject => DiscardPolicy::Reject,
            Full::DropOldest => DiscardPolicy::DropOldest,
        });
    }
    if let Some(millis) = args.ttl_ms {
        ensure = ensure.ttl((millis > 0).then(|| Duration::from_millis(millis)));
    }
    if let Some(millis) = args.dedup_window_ms {
        ensure = ensure.dedup_window(Duration::from_millis(millis));
    }
    if let Some(warm) = args.warm {
        ensure = ensure.warm(warm);
    }
    let options = ensure.await?;
    Output::new().value(&described(topic.name().name(), &options))
}

async fn list(connected: &Connected) -> Result<(), Failure> {
    let bus = connected.chronow.bus();
    let mut out = Output::new();
    for name in bus.topics().await? {
        // One that was removed meanwhile is none any more.
        if let Some(options) = bus.topic(&name)?.options().await? {
            out.line(&described(&name, &options))?;
        }
    }
    out.finish()
}

fn described(name: &str, options: &TopicOptions) -> Json {
    json!({ "topic": name, "options": options })
}
