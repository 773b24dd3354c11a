//! `chronos bus peek`, `stats`, `purge` and `replay`.

use std::io::{self, IsTerminal as _};

use chronos_db::{Json, Timestamp, json};
use chronow::hot::{MessageState, SubscriptionStats, TopicStats};
use clap::Args;

use super::{SubscriptionArg, TopicArg, stored};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::output::Output;

/// Look at the messages of a subscription without taking them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus peek payments fraud --limit 3")]
pub(crate) struct PeekArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Count the messages of a topic and of each subscription: a table on a terminal, else JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus stats payments
  chronos bus stats payments --json")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    topic: TopicArg,
    /// JSON on a terminal, too.
    #[arg(long)]
    json: bool,
}

/// Remove all messages of a topic, for all subscriptions. Dead letters stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus purge payments")]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    topic: TopicArg,
}

/// Give a subscription messages again, from the copies that a topic with `--warm` keeps.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus replay payments fraud --from 2026-01-31T12:00:00Z")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    /// Only what was published then or later.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    from: Option<Timestamp>,
    /// Only what was published before.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    until: Option<Timestamp>,
}

pub(super) async fn peek(connected: &Connected, args: PeekArgs) -> Result<(), Failure> {
    let mut out = Output::new();
    for peeked in args.subscription.of(connected)?.peek(args.limit).await? {
        let mut line = stored(&peeked.message);
        let state = match peeked.state {
            MessageState::Unread => "unread",
            MessageState::InFlight => "inFlight",
            MessageState::Scheduled => "scheduled",
            MessageState::Deferred => "deferred",
        };
        line.insert("place".to_owned(), state.into());
        line.insert("deliveries".to_owned(), peeked.deliveries.into());
        line.insert("publishedAt".to_owned(), peeked.message.published_at.to_string().into());
        if let Some(until) = peeked.until {
            line.insert("until".to_owned(), until.to_string().into());
        }
        out.line(&line.into())?;
    }
    out.finish()
}

pub(super) async fn stats(connected: &Connected, args: StatsArgs) -> Result<(), Failure> {
    let topic = args.topic.of(connected)?;
    let stats = topic.stats().await?;
    if args.json || !io::stdout().is_terminal() {
        let mut out = Output::new();
        return out.now(&counted(topic.name().name(), &stats));
    }
    table(topic.name().name(), &stats)
}

pub(super) fn counted(topic: &str, stats: &TopicStats) -> Json {
    let all = |of: &[SubscriptionStats]| of.iter().map(subscription).collect::<Vec<Json>>();
    let mut out = json!({ "topic": topic, "length": stats.length, "dropped": stats.dropped, "subscriptions": all(&stats.subscriptions) });
    if !stats.internal.is_empty() {
        // What waits there counts for the length, too.
        out["internal"] = all(&stats.internal).into();
    }
    out
}

fn subscription(stats: &SubscriptionStats) -> Json {
    json!({
        "subscription": stats.subscription,
        "backlog": stats.backlog,
        "pending": stats.pending,
        "scheduled": stats.scheduled,
        "deferred": stats.deferred,
        "deadLetters": stats.dead_letters,
        "deliveries": stats.deliveries,
        "acked": stats.acked,
        "oldestAgeMs": stats.oldest_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "paused": stats.paused,
    })
}

fn table(topic: &str, stats: &TopicStats) -> Result<(), Failure> {
    let mut out = Output::new();
    out.text(&format!("{topic}: {} messages held, {} dropped", stats.length, stats.dropped))?;
    let shown = || stats.subscriptions.iter().chain(&stats.internal);
    let width =
        shown().map(|stats| stats.subscription.chars().count()).max().unwrap_or(0).max("subscription".len());
    let head = ["backlog", "pending", "scheduled", "deferred", "dead", "acked"];
    out.text(&row("subscription", width, head))?;
    for stats in shown() {
        let counts =
            [stats.backlog, stats.pending, stats.scheduled, stats.deferred, stats.dead_letters, stats.acked];
        let paused = if stats.paused { "  paused" } else { "" };
        out.text(&format!("{}{paused}", row(&stats.subscription, width, counts)))?;
    }
    out.finish()
}

fn row(name: &str, width: usize, cells: [impl ToString; 6]) -> String {
    let cells = cells.map(|cell| format!("{:>10}", cell.to_string()));
    format!("{name:width$}{}", cells.concat())
}

pub(super) async fn purge(connected: &Connected, args: PurgeArgs) -> Result<(), Failure> {
    let purged = args.topic.of(connected)?.purge().await?;
    Output::new().value(&json!({ "purged": purged }))
}

pub(super) async fn replay(connected: &Connected, args: ReplayArgs) -> Result<(), Failure> {
    let mut replay = args.subscription.of(connected)?.replay();
    if let Some(from) = args.from {
        replay = replay.from(from);
    }
    if let Some(until) = args.until {
        replay = replay.until(until);
    }
    Output::new().value(&json!({ "replayed": replay.await? }))
}
