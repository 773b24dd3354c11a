//! `chronos backup`.

use std::future::IntoFuture as _;
use std::path::{Path, PathBuf};

use chronos_db::{BackedUp, BackupInfo, Chronos, Error, Route};
use clap::{Args, Subcommand};

use crate::failure::{Failure, Failures};
use crate::open::{Globals, Session};
use crate::output::Output;

/// Back up collections: every version that came since the last backup, while writes go on.
///
/// Backups go to the backups bucket of the database, or to a folder. One that was stopped is continued by the
/// next. What is printed is one line per collection. One that fails is reported on stderr, and the others are backed up.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  chronos backup
  chronos backup -c users -c orders
  chronos backup -c users --to backups
  chronos backup list
  chronos backup verify --from backups"
)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    #[command(flatten)]
    of: CollectionsArg,
    /// Back up to this folder instead of the backups bucket.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CollectionsArg {
    /// The collection; several may be named. Without it, all of the database.
    #[arg(short, long = "collection", value_name = "COLL")]
    collections: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    List(ListArgs),
    Verify(VerifyArgs),
}

/// Print what is backed up, one line per collection.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos backup list
  chronos backup list --from backups")]
struct ListArgs {
    #[command(flatten)]
    of: CollectionsArg,
    /// What is in this folder, of every database and tenant.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

/// Read every file of the backups and compare it with its index. The exit code is 0 only if nothing is damaged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos backup verify
  chronos backup verify -c users --from backups")]
struct VerifyArgs {
    #[command(flatten)]
    of: CollectionsArg,
    /// What is in this folder, of every database and tenant.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

pub(crate) async fn run(globals: &Globals, args: BackupArgs) -> Result<(), Failure> {
    match args.command {
        None => back_up(globals, args.of, args.to).await,
        Some(BackupCommand::List(args)) => list(globals, args).await,
        Some(BackupCommand::Verify(args)) => verify(globals, args).await,
    }
}

async fn back_up(globals: &Globals, of: CollectionsArg, to: Option<PathBuf>) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let names = match of.collections.is_empty() {
        true => session.chronos.collections(&session.route_to("any")).await?,
        false => of.collections,
    };
    let mut out = Output::new();
    let mut damaged = 0;
    let mut failures = Failures::default();
    // One that fails keeps no other from being backed up.
    for name in names {
        match back_up_one(&session, &name, to.as_deref()).await {
            Ok(done) => {
                damaged += done.damaged;
                out.now(&done.to_json())?;
            }
            Err(error) => failures.say(&format!("collection `{name}`: {error}")),
        }
    }
    session.close().await?;
    if damaged > 0 {
        failures.say(&format!(
            "DAMAGE: the payloads of {damaged} versions are missing or damaged, everything else is backed up; `verify` tells more"
        ));
    }
    failures.end()
}

async fn back_up_one(session: &Session, name: &str, to: Option<&Path>) -> Result<BackedUp, Error> {
    let mut backup = session.chronos.existing(session.route_to(name)).await?.backup();
    if let Some(folder) = to {
        backup = backup.to_folder(folder);
    }
    backup.await
}

/// The routes to what is meant.
fn routes(session: &Session, of: &CollectionsArg) -> Vec<Route> {
    if of.collections.is_empty() {
        return vec![Route { collection: None, ..session.route_to("any") }];
    }
    of.collections.iter().map(|name| session.route_to(name)).collect()
}

async fn list(globals: &Globals, args: ListArgs) -> Result<(), Failure> {
    look(globals, &args.of, |chronos, route| match &args.from {
        Some(folder) => chronos.backups(route).from_folder(folder).into_future(),
        None => chronos.backups(route).into_future(),
    })
    .await
}

async fn verify(globals: &Globals, args: VerifyArgs) -> Result<(), Failure> {
    look(globals, &args.of, |chronos, route| match &args.from {
        Some(folder) => chronos.verify_backups(route).from_folder(folder).into_future(),
        None => chronos.verify_backups(route).into_future(),
    })
    .await
}

/// Tells what is found by one look at each of what is meant.
async fn look<F>(
    globals: &Globals,
    of: &CollectionsArg,
    one: impl Fn(&Chronos, Route) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<Vec<BackupInfo>, Error>>,
{
    let session = globals.open_for_reading()?;
    let mut found = Vec::new();
    let mut failures = Failures::default();
    for route in routes(&session, of) {
        let what =
            route.collection.as_ref().map_or("backups".to_owned(), |name| format!("collection `{name}`"));
        match one(&session.chronos, route).await {
            Ok(backups) => found.extend(backups),
            Err(error) => failures.say(&format!("{what}: {error}")),
        }
    }
    session.close().await?;
    tell(&found)?;
    failures.end()
}

fn tell(found: &[BackupInfo]) -> Result<(), Failure> {
    let mut out = Output::new();
    for backup in found {
        out.line(&backup.to_json())?;
    }
    out.finish()?;
    let problems: usize = found.iter().map(|backup| backup.problems.len()).sum();
    if problems == 0 {
        return Ok(());
    }
    Err(Failure::said(&format!("DAMAGE in the backups: {problems} problems")))
}
