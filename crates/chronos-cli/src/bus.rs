//! `chronos bus`.

mod consume;
mod dlq;
mod exec;
mod look;
mod publish;
mod sub;
mod top;
mod topic;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::json::Map;
use chronos_db::{Json, json};
use chronow::hot::StoredMessage;
use chronow::{Subscription, Topic};
use clap::{Args, Subcommand};

use crate::connect::{Connected, NamespaceArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Topics: publish messages, and give each to every subscription until it has settled it.
///
/// A message that fails comes again after a while; when it has failed too often, it is in the dead letters of
/// that subscription. The topics are in Redis if the configuration has a section `chronow` with one, else in
/// the messaging database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus topic create payments
  chronos bus sub create payments fraud --max-deliveries 5
  chronos bus publish payments --payload '{\"orderId\": \"123\", \"amount\": 42.5}'
  chronos bus consume payments fraud --exit-when-idle-ms 2000
  chronos bus stats payments
  chronos bus top")]
pub(crate) struct BusArgs {
    #[command(flatten)]
    of: NamespaceArg,
    #[command(subcommand)]
    command: BusCommand,
}

#[derive(Debug, Subcommand)]
enum BusCommand {
    Topic(topic::TopicArgs),
    Sub(sub::SubArgs),
    Publish(publish::PublishArgs),
    Cancel(publish::CancelArgs),
    Consume(consume::ConsumeArgs),
    Dlq(dlq::DlqArgs),
    Peek(look::PeekArgs),
    Stats(look::StatsArgs),
    Purge(look::PurgeArgs),
    Replay(look::ReplayArgs),
    Top(top::TopArgs),
}

pub(crate) async fn run(globals: &Globals, args: BusArgs) -> Result<(), Failure> {
    let BusArgs { of, command } = args;
    let looks = match &command {
        BusCommand::Topic(args) => args.looks(),
        BusCommand::Sub(args) => args.looks(),
        BusCommand::Dlq(args) => args.looks(),
        BusCommand::Peek(_) | BusCommand::Stats(_) => true,
        BusCommand::Top(args) => args.looks(),
        _ => false,
    };
    if let BusCommand::Consume(args) = &command {
        args.serve_metrics()?;
    }
    let connected = if looks {
        globals.connect_for_reading(&of).await?
    } else {
        globals.connect_for_writing(&of).await?
    };
    let done = match command {
        BusCommand::Topic(args) => topic::run(&connected, args).await,
        BusCommand::Sub(args) => sub::run(&connected, args).await,
        BusCommand::Publish(args) => publish::run(&connected, args).await,
        BusCommand::Cancel(args) => publish::cancel(&connected, args).await,
        BusCommand::Consume(args) => consume::run(&connected, args).await,
        BusCommand::Dlq(args) => dlq::run(&connected, args).await,
        BusCommand::Peek(args) => look::peek(&connected, args).await,
        BusCommand::Stats(args) => look::stats(&connected, args).await,
        BusCommand::Purge(args) => look::purge(&connected, args).await,
        BusCommand::Replay(args) => look::replay(&connected, args).await,
        BusCommand::Top(args) => top::run(&connected, args).await,
    };
    connected.end(done).await
}

/// Which topic.
#[derive(Debug, Args)]
struct TopicArg {
    /// The topic.
    #[arg(value_name = "TOPIC")]
    topic: String,
}

impl TopicArg {
    fn of(&self, connected: &Connected) -> Result<Topic, Failure> {
        Ok(connected.chronow.bus().topic(&self.topic)?)
    }
}

/// Which subscription.
#[derive(Debug, Args)]
struct SubscriptionArg {
    #[command(flatten)]
    topic: TopicArg,
    /// The subscription.
    #[arg(value_name = "SUB")]
    subscription: String,
}

impl SubscriptionArg {
    fn of(&self, connected: &Connected) -> Result<Subscription, Failure> {
        Ok(self.topic.of(connected)?.subscription(&self.subscription)?)
    }
}

fn missing(what: &str, name: &str) -> Failure {
    chronow::Error::new(chronow::ErrorKind::NotFound, format!("there is no {what} `{name}`")).into()
}

/// What every list of messages shows first.
fn shown(
    id: &str,
    payload: &[u8],
    content_type: &str,
    headers: &BTreeMap<String, String>,
    key: Option<&str>,
) -> Map {
    let mut line = Map::new();
    line.insert("id".to_owned(), id.into());
    line.insert("payload".to_owned(), payload_json(payload, content_type));
    line.insert("headers".to_owned(), json!(headers));
    if !content_type.is_empty() {
        line.insert("contentType".to_owned(), content_type.into());
    }
    if let Some(key) = key {
        line.insert("key".to_owned(), key.into());
    }
    line
}

/// The same of a message as a topic keeps it.
fn stored(message: &StoredMessage) -> Map {
    let StoredMessage { id, payload, content_type, headers, key, .. } = message;
    shown(id, payload, content_type, headers, key.as_deref())
}

/// A payload as JSON: as it is, else as text, else in base64.
fn payload_json(payload: &[u8], content_type: &str) -> Json {
    let is_json = content_type.is_empty() || content_type.contains("json");
    if let Some(value) = is_json.then(|| Json::parse(payload).ok()).flatten() {
        return value;
    }
    match std::str::from_utf8(payload) {
        Ok(text) => text.into(),
        Err(_) => json!({ "$base64": STANDARD.encode(payload) }),
    }
}

fn parse_filter(text: &str) -> Result<Json, Failure> {
    input::parse(text.as_bytes(), "the filter")
}

#[cfg(test)]
mod tests {
    use chronos_db::json;

    use super::payload_json;

    #[test]
    fn a_payload_is_shown_as_json_else_as_text_else_in_base64() {
        assert_eq!(payload_json(b"{\"a\": 1}", ""), json!({"a": 1}));
        assert_eq!(payload_json(b"1", "application/json; charset=utf-8"), json!(1));
        assert_eq!(payload_json(b"1", "text/plain"), json!("1"));
        assert_eq!(payload_json(b"{", ""), json!("{"));
        assert_eq!(payload_json(&[0xff, 0xfe], "application/octet-stream"), json!({"$base64": "//4="}));
    }
}
