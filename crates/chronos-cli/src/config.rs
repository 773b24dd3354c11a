//! `chronos config`.

use std::path::PathBuf;
use std::time::Duration;

use chronos_db::{Chronos, Error, Json, json};
use clap::{Args, Subcommand};

use crate::failure::{Failure, one_line};
use crate::open::{absent_is_empty, from_file};
use crate::output::{Output, note};

/// A server that has not answered by then is taken to be away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Look at configurations.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos config check chronos.json --connect")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(CheckArgs),
}

/// Check a configuration file and describe what it means: every database with its engine, hosts and buckets, and the warnings. No secret is shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos config check chronos.json
  MONGO_URI=mongodb://localhost chronos config check chronos.json --connect")]
struct CheckArgs {
    /// The configuration; `ENV.NAME` in it is taken from the environment.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also ask every document connection for its time; the exit code is 1 if one does not answer.
    #[arg(long)]
    connect: bool,
}

pub(crate) async fn run(args: ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check(args) = args.command;
    let mut config = from_file(&args.file)?;
    let mut described = config.describe();
    for warning in config.warnings.iter().chain(&config.without_effect) {
        note(&format!("warning: {}: {}", warning.path, one_line(&warning.message)));
    }
    if !args.connect {
        Chronos::open(config)?;
        return Output::new().value(&described);
    }
    let absent = absent_is_empty(&mut config);
    let references: Vec<String> = config.connections.keys().cloned().collect();
    let chronos = Chronos::open(config)?;
    let answers = futures::future::join_all(references.iter().map(|reference| answer(&chronos, reference))).await;
    let mut away = 0;
    let connections = references.iter().zip(answers).map(|(reference, answer)| match answer {
        Ok(_) if absent.contains(reference) => json!({ "connection": reference, "ok": true, "exists": false }),
        Ok(now) => json!({ "connection": reference, "ok": true, "now": now }),
        Err(error) => {
            away += 1;
            note(&format!("error: connection `{reference}`: {}", one_line(&error.to_string())));
            json!({ "connection": reference, "ok": false, "error": error.to_string() })
        }
    });
    described["connections"] = connections.collect::<Vec<_>>().into();
    if away == 0 {
        let shared = chronos.shared_databases().await?;
        for (one, other) in &shared {
            note(&format!("{other} and {one} lead to one database"));
        }
        described["sharedDatabases"] = shared.iter().map(|(one, other)| json!([one, other])).collect();
    }
    // A server that is away may keep its client from closing.
    if let Ok(closed) = tokio::time::timeout(Duration::from_secs(2), chronos.shutdown()).await {
        closed?;
    }
    Output::new().value(&described)?;
    if away > 0 { Err(Failure::Reported) } else { Ok(()) }
}

async fn answer(chronos: &Chronos, reference: &str) -> Result<Json, Error> {
    let documents = chronos.documents(reference)?;
    match tokio::time::timeout(PATIENCE, documents.now()).await {
        Ok(now) => Ok(now?.to_string().into()),
        Err(_) => Err(Error::database(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}
