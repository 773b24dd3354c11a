//! `chronos migrate`.

use std::path::PathBuf;

use chronos_db::Chronos;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::open::{Globals, absent_is_empty, from_file};
use crate::output::{Output, note};

/// Bring data of other layouts and earlier programs into today's shape.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos migrate messaging --config chronos.json --dry-run")]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    Messaging(MessagingArgs),
}

/// Make the collections and indexes of every messaging database, and bring the documents of all tenants there and into today's shape.
///
/// With --from the documents of another configuration are copied, such as of one database for all tenants into one for each, or back. The source keeps
/// them. Running it again continues it and changes nothing that is done. What is printed is one JSON line. The exit code is 1 if some documents
/// could not be brought; they stay where they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos migrate messaging --config chronos.json --dry-run
  chronos migrate messaging --config per-tenant.json --from one-database.json")]
struct MessagingArgs {
    /// The configuration of the database the documents are in now.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Only count what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(globals: &Globals, args: MigrateArgs) -> Result<(), Failure> {
    let MigrateCommand::Messaging(args) = args.command;
    let source = match &args.from {
        Some(file) => {
            let mut config = from_file(file)?;
            // Looking at a source creates nothing.
            absent_is_empty(&mut config);
            Some(Chronos::open(config)?)
        }
        None => None,
    };
    let opened = if args.dry_run { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let mut migrate = opened.chronos.migrate_messaging();
    if let Some(source) = &source {
        migrate = migrate.from(source);
    }
    if args.dry_run {
        migrate = migrate.dry_run();
    }
    let done = migrate.await?;
    if let Some(source) = source {
        source.shutdown().await?;
    }
    opened.close().await?;
    Output::new().value(&done.to_json())?;
    if done.problems == 0 {
        return Ok(());
    }
    note(&format!("error: {} of {} documents stay where they are", done.problems, done.read));
    Err(Failure::Reported)
}
