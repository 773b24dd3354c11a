//! `chronos config`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chronos_db::documents::Rights;
use chronos_db::{Chronos, Error, Json, json};
use clap::{Args, Subcommand};

use crate::failure::{Failure, one_line};
use crate::open::{absent_is_empty, from_file};
use crate::output::Output;
use crate::stderr::note;

/// A server that has not answered by then is taken to be away.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long one question may take, so that its error says what was seen of the servers.
const QUESTION: Duration = Duration::from_secs(5);

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

/// Check a configuration file and describe what it means: every database with its engine, hosts and buckets,
/// and the warnings. No secret is shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos config check chronos.json
  MONGO_URI=mongodb://localhost chronos config check chronos.json --connect")]
struct CheckArgs {
    /// The configuration; `ENV.NAME` in it is taken from the environment.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also ask every document connection for its time, and whether its user may read and write; the exit
    /// code is 1 if one does not answer, or its user may not read a database.
    #[arg(long)]
    connect: bool,
}

pub(crate) async fn run(args: ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check(args) = args.command;
    let mut config = from_file(&args.file)?;
    let mut described = config.describe();
    for warning in &config.warnings {
        note(&format!("warning: {}: {}", warning.path, one_line(&warning.message)));
    }
    if !args.connect {
        Chronos::open(config)?;
        return Output::new().value(&described);
    }
    let absent = absent_is_empty(&mut config);
    let references: Vec<String> = config.connections.keys().cloned().collect();
    let databases = databases(&described);
    let chronos = Chronos::builder(config).timeout(QUESTION).open()?;
    let answers =
        futures::future::join_all(references.iter().map(|reference| answer(&chronos, reference, &databases)))
            .await;
    let mut wrong = 0;
    let connections = references.iter().zip(answers).map(|(reference, answer)| match answer {
        Ok(_) if absent.contains(reference) => json!({ "connection": reference, "ok": true, "exists": false }),
        Ok(Answer { now, rights }) => {
            let unreadable = rights.iter().filter(|(_, rights)| !rights.read).count();
            wrong += unreadable;
            for (database, rights) in &rights {
                tell_rights(reference, database, *rights);
            }
            let rights = rights.iter().map(|(name, r)| json!({ "database": name, "read": r.read, "write": r.write, "index": r.index }));
            json!({ "connection": reference, "ok": unreadable == 0, "now": now, "databases": rights.collect::<Vec<_>>() })
        }
        Err(error) => {
            wrong += 1;
            note(&format!("error: connection `{reference}`: {}", one_line(&error.to_string())));
            json!({ "connection": reference, "ok": false, "error": error.to_string() })
        }
    });
    described["connections"] = connections.collect::<Vec<_>>().into();
    if wrong == 0 {
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
    if wrong > 0 { Err(Failure::Reported) } else { Ok(()) }
}

/// What a connection said.
struct Answer {
    now: String,
    rights: Vec<(String, Rights)>,
}

/// The databases that the configuration names, each with its connection.
fn databases(described: &Json) -> BTreeSet<(String, String)> {
    let text = |value: &Json| value.as_str().map(str::to_owned);
    let entries = described["entries"].as_array().into_iter().flatten();
    let counters = &described["counters"];
    entries
        .flat_map(|entry| {
            [(&entry["connection"], &entry["database"]), (&entry["connection"], &entry["analyticsDatabase"])]
        })
        .chain([(&counters["connection"], &counters["database"])])
        .filter_map(|(connection, database)| Some((text(connection)?, text(database)?)))
        .collect()
}

fn tell_rights(reference: &str, database: &str, rights: Rights) {
    match rights {
        Rights { read: false, .. } => {
            note(&format!(
                "error: connection `{reference}`: its user may not read the database `{database}`"
            ));
        }
        Rights { write: false, .. } => {
            note(&format!(
                "warning: connection `{reference}`: its user may read the database `{database}`, and not write to it"
            ));
        }
        Rights { index: false, .. } => note(&format!(
            "warning: connection `{reference}`: its user may not make indexes in the database `{database}`; where one is missing, nothing is written"
        )),
        _ => {}
    }
}

async fn answer(
    chronos: &Chronos,
    reference: &str,
    databases: &BTreeSet<(String, String)>,
) -> Result<Answer, Error> {
    let documents = chronos.documents(reference)?;
    let asked = async {
        let now = documents.now().await?.to_string();
        let mut rights = Vec::new();
        for (_, database) in databases.iter().filter(|(of, _)| of == reference) {
            rights.push((database.clone(), documents.rights(database).await?));
        }
        Ok(Answer { now, rights })
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::database(format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}
