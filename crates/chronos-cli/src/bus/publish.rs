//! `chronos bus publish` and `chronos bus cancel`.

use std::collections::BTreeMap;
use std::time::Duration;

use chronos_db::{Error, Json, Timestamp, json};
use chronow::hot::PublishAck;
use chronow::{ErrorKind, PublishMessage, Topic};
use clap::Args;

use super::TopicArg;
use crate::connect::Connected;
use crate::failure::{Failure, one_line};
use crate::input;
use crate::lines::{Line, Lines};
use crate::output::Output;
use crate::stderr::note;
use crate::stop::Stop;

/// Publish messages, one JSON line each: {"payload": …, "headers"?: {…}, "key"?: …, "id"?: …, "delayMs"?: …,
/// "at"?: TIME, "ttlMs"?: …}.
///
/// Prints a line for every message once it is accepted: its `id`, and `duplicate` if a message with the same
/// `id` was accepted before. Messages of one `key` are delivered in order, one at a time. Stopped by Ctrl-C
/// or SIGTERM it says behind which line, and exits with 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus publish payments \\
    --payload '{\"orderId\": \"123\", \"amount\": 42.5}' \\
    --header type=payment.created
  chronos bus publish payments payments.ndjson
  echo '{\"payload\": {\"n\": 1}, \"delayMs\": 5000}' \\
    | chronos bus publish payments -")]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    topic: TopicArg,
    /// Messages, one per line; `-` is standard input.
    #[arg(value_name = "FILE|-", required_unless_present = "payload", conflicts_with = "payload")]
    file: Option<String>,
    /// One message instead: its payload.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// With --payload: a header.
    #[arg(long, value_name = "NAME=VALUE", requires = "payload", value_parser = header)]
    header: Vec<(String, String)>,
    /// With --payload: the ordering key.
    #[arg(long, value_name = "KEY", requires = "payload")]
    key: Option<String>,
    /// With --payload: an id by which it is accepted only once.
    #[arg(long, value_name = "ID", requires = "payload")]
    id: Option<String>,
    /// With --payload: deliver it no earlier than this long from now.
    #[arg(long, value_name = "N", requires = "payload")]
    delay_ms: Option<u64>,
    /// Take at most this many lines together. A pause of the input is never waited for.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
}

/// Take back a message that was published for later. Its time must not have come.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus cancel payments ID")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    topic: TopicArg,
    /// The id that `publish` printed.
    #[arg(value_name = "ID")]
    id: String,
}

/// One line of the input.
#[derive(Debug, Default)]
struct Given {
    payload: Json,
    headers: BTreeMap<String, String>,
    key: Option<String>,
    id: Option<String>,
    delay_ms: Option<u64>,
    at: Option<String>,
    ttl_ms: Option<u64>,
}

impl Given {
    fn message(self) -> Result<PublishMessage, Error> {
        let mut message = PublishMessage::json(&self.payload);
        for (name, value) in self.headers {
            message = message.header(name, value);
        }
        if let Some(key) = self.key {
            message = message.key(key);
        }
        if let Some(id) = self.id {
            message = message.dedup_id(id);
        }
        if let Some(millis) = self.delay_ms {
            message = message.delay(Duration::from_millis(millis));
        }
        if let Some(at) = self.at {
            message = message.at(Timestamp::parse(&at)?);
        }
        if let Some(millis) = self.ttl_ms {
            message = message.ttl(Duration::from_millis(millis));
        }
        Ok(message)
    }
}

fn read(line: &Json) -> Result<PublishMessage, Error> {
    let fields =
        line.as_object().ok_or_else(|| Error::validation("a message is a JSON object with a `payload`"))?;
    let mut given = Given {
        payload: fields.get("payload").ok_or_else(|| Error::validation("`payload` is missing"))?.clone(),
        ..Given::default()
    };
    for (name, value) in fields {
        let wrong = |wanted: &str| Error::validation(format!("`{name}` is {wanted}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a text"));
        let millis = || value.as_u64().ok_or_else(|| wrong("a whole number of milliseconds"));
        match name.as_str() {
            "payload" => {}
            _ if value.is_null() => {}
            "headers" => {
                let headers = value.as_object().ok_or_else(|| wrong("an object of texts"))?;
                for (header, value) in headers {
                    let value = value
                        .as_str()
                        .ok_or_else(|| Error::validation(format!("the header `{header}` is a text")))?;
                    given.headers.insert(header.clone(), value.to_owned());
                }
            }
            "key" => given.key = Some(text()?),
            "id" => given.id = Some(text()?),
            "delayMs" => given.delay_ms = Some(millis()?),
            "at" => given.at = Some(text()?),
            "ttlMs" => given.ttl_ms = Some(millis()?),
            _ => {
                let known = "payload, headers, key, id, delayMs, at and ttlMs";
                return Err(Error::validation(format!("`{name}` is not a field of a message; {known} are")));
            }
        }
    }
    given.message()
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a header is NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(connected: &Connected, args: PublishArgs) -> Result<(), Failure> {
    let topic = args.topic.of(connected)?;
    let Some(file) = args.file else { return one(&topic, args).await };
    let mut lines = Lines::open(&file, read)?;
    let mut out = Output::new();
    let mut taken = Vec::with_capacity(args.batch as usize);
    let (mut stop, mut last) = (Stop::listen(), 0);
    loop {
        // What is on its way is accepted and printed first.
        let count = tokio::select! {
            biased;
            () = stop.comes() => {
                note(&format!("stopped behind line {last}: nothing that follows is published"));
                return Err(Failure::Reported);
            }
            count = lines.take(&mut taken, args.batch as usize) => count,
        };
        if count == 0 {
            return lines.end();
        }
        let bytes = taken.iter().map(|line| line.bytes).sum();
        last = taken.last().map_or(last, |line| line.number);
        publish(&topic, taken.drain(..), &mut out).await?;
        lines.release(bytes);
    }
}

async fn one(topic: &Topic, args: PublishArgs) -> Result<(), Failure> {
    let text = args.payload.unwrap_or_default();
    let payload = input::parse(text.as_bytes(), "the payload")?;
    let headers = args.header.into_iter().collect();
    let given =
        Given { payload, headers, key: args.key, id: args.id, delay_ms: args.delay_ms, ..Given::default() };
    for published in topic.publish_batch([given.message()?]).await? {
        Output::new().value(&acknowledgement(&published))?;
    }
    Ok(())
}

/// Publishes some lines. One that is not a message ends it; those before it are published.
async fn publish(
    topic: &Topic,
    lines: impl Iterator<Item = Line<PublishMessage>>,
    out: &mut Output,
) -> Result<(), Failure> {
    let (mut numbers, mut messages, mut wrong) = (Vec::new(), Vec::new(), Ok(()));
    for line in lines {
        match line.read {
            Ok(message) => {
                numbers.push(line.number);
                messages.push(message);
            }
            Err(error) => {
                wrong = Err(Failure::wrong(format!("line {}: {}", line.number, error.message())));
                break;
            }
        }
    }
    if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
        let published = topic.publish_batch(messages).await.map_err(|error| match error.kind() {
            // Every message is checked before the first is sent.
            ErrorKind::Validation => {
                let of = if first == last {
                    format!("line {first}")
                } else {
                    format!("lines {first} to {last}, none of which was published")
                };
                Failure::wrong(format!("{of}: {}", one_line(error.message())))
            }
            _ => error.into(),
        })?;
        for published in &published {
            out.line(&acknowledgement(published))?;
        }
        out.finish()?;
    }
    wrong
}

fn acknowledgement(published: &PublishAck) -> Json {
    if published.duplicate {
        json!({ "id": published.id, "duplicate": true })
    } else {
        json!({ "id": published.id })
    }
}

pub(super) async fn cancel(connected: &Connected, args: CancelArgs) -> Result<(), Failure> {
    if !args.topic.of(connected)?.cancel(&args.id).await? {
        return Err(super::missing("scheduled message", &args.id));
    }
    Output::new().value(&json!({ "id": args.id, "cancelled": true }))
}
