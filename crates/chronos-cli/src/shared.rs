//! `chronos shared`.

use std::time::Duration;

use chronos_db::{Json, json};
use chronow::Shared;
use clap::{Args, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::connect::NamespaceArg;
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;
use crate::output::Output;
use crate::stop::Stop;

/// Shared memory: JSON values under keys, for a while or for good.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared set session:42 '{\"user\": \"a\"}' --ttl-ms 60000
  chronos shared get session:42
  chronos shared watch --prefix session:")]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    of: NamespaceArg,
    #[command(subcommand)]
    command: SharedCommand,
}

#[derive(Debug, Subcommand)]
enum SharedCommand {
    Get(GetArgs),
    Set(SetArgs),
    Del(DelArgs),
    List(ListArgs),
    Watch(WatchArgs),
}

/// Print a value.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared get session:42
  chronos shared get session:42 --with-version      # {value, version, ttlMs}")]
struct GetArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    key: String,
    /// With its version and what is left of its time.
    #[arg(long)]
    with_version: bool,
}

/// Set a value, for an hour unless the configuration or an option says otherwise. Prints its version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared set greeting '{\"text\": \"hello\"}' --forever
  chronos shared set leader '\"me\"' --ttl-ms 10000 --if-absent
  chronos shared set counter 7 --if-version 1767225600000000 --persist")]
struct SetArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    key: String,
    /// The value; `-` is standard input.
    #[arg(value_name = "JSON|-", allow_hyphen_values = true)]
    value: String,
    /// For so long; at least 1.
    #[arg(long, value_name = "N", conflicts_with = "forever")]
    ttl_ms: Option<u64>,
    /// Until it is deleted.
    #[arg(long)]
    forever: bool,
    /// Keep it in the messaging database, too, where it outlives its time.
    #[arg(long)]
    persist: bool,
    /// Fail with CONFLICT if there is a value.
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Fail with CONFLICT unless the key is at this version.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// Delete a key. `deleted` is false if it had no value.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared del session:42")]
struct DelArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    key: String,
}

/// List the keys that have a value.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared list --prefix session:")]
struct ListArgs {
    /// Only keys that begin so.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
}

/// Print every change of a key as it happens, until it is stopped.
///
/// `deleted` says that the key was deleted, `expired` that its time to live is over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos shared watch --prefix session:")]
struct WatchArgs {
    /// Only keys that begin so.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// End after this many changes.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
}

pub(crate) async fn run(globals: &Globals, args: SharedArgs) -> Result<(), Failure> {
    let SharedArgs { of, command } = args;
    let looks = matches!(command, SharedCommand::Get(_) | SharedCommand::List(_));
    let connected = if looks {
        globals.connect_for_reading(&of).await?
    } else {
        globals.connect_for_writing(&of).await?
    };
    let shared = connected.chronow.shared();
    let done = match command {
        SharedCommand::Get(args) => get(&shared, &args).await,
        SharedCommand::Set(args) => set(&shared, &args).await,
        SharedCommand::Del(args) => del(&shared, &args).await,
        SharedCommand::List(args) => list(&shared, &args).await,
        SharedCommand::Watch(args) => watch(&shared, &args).await,
    };
    connected.end(done).await
}

async fn get(shared: &Shared, args: &GetArgs) -> Result<(), Failure> {
    let Some(entry) = shared.entry::<Json>(&args.key).await? else {
        return Err(chronow::Error::new(chronow::ErrorKind::NotFound, "the key has no value")
            .on(&args.key)
            .into());
    };
    if !args.with_version {
        return Output::new().value(&entry.value);
    }
    let left = entry.ttl.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    Output::new().value(&json!({ "value": entry.value, "version": entry.version, "ttlMs": left }))
}

async fn set(shared: &Shared, args: &SetArgs) -> Result<(), Failure> {
    let value = read(&args.value)?;
    let mut set = match args.if_version {
        Some(version) => shared.compare_and_set(&args.key, version, &value),
        None if args.if_absent => shared.set_if_absent(&args.key, &value),
        None => shared.set(&args.key, &value),
    };
    if let Some(millis) = args.ttl_ms {
        set = set.ttl(Duration::from_millis(millis));
    }
    if args.forever {
        set = set.forever();
    }
    if args.persist {
        set = set.persist();
    }
    Output::new().value(&json!({ "key": args.key, "version": set.await? }))
}

fn read(given: &str) -> Result<Json, Failure> {
    if given != "-" {
        return input::parse(given.as_bytes(), "the value");
    }
    let text =
        input::read(given).map_err(|error| Failure::wrong(format!("the value cannot be read: {error}")))?;
    input::parse(&text, "the value")
}

async fn del(shared: &Shared, args: &DelArgs) -> Result<(), Failure> {
    let deleted = shared.del(&args.key).await?;
    Output::new().value(&json!({ "key": args.key, "deleted": deleted }))
}

async fn list(shared: &Shared, args: &ListArgs) -> Result<(), Failure> {
    let mut out = Output::new();
    let mut keys = shared.scan(&args.prefix);
    while let Some(key) = keys.try_next().await? {
        out.line(&json!({ "key": key }))?;
    }
    out.finish()
}

async fn watch(shared: &Shared, args: &WatchArgs) -> Result<(), Failure> {
    let mut changes = shared.watch(&args.prefix).await?;
    let mut stop = Stop::listen();
    let mut out = Output::new();
    let mut seen = 0;
    while args.max.is_none_or(|most| seen < most) {
        let change = tokio::select! {
            change = changes.next() => change,
            () = stop.comes() => break,
        };
        let change = match change {
            None => break,
            Some(Ok(change)) => change,
            Some(Err(error)) if error.is_retryable() => {
                Failure::from(error).tell_interruption();
                continue;
            }
            Some(Err(error)) => return Err(error.into()),
        };
        let mut line = json!({ "key": change.key, "version": change.version, "deleted": change.deleted });
        if change.expired {
            line["expired"] = true.into();
        }
        out.now(&line)?;
        seen += 1;
    }
    Ok(())
}
