//! `chronos migrate`.

use std::path::PathBuf;

use chronos_db::Chronos;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::open::{Globals, absent_is_empty, from_file};
use crate::output::Output;

/// Convert data of other layouts and earlier programs to the current one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos migrate messaging --config chronos.json --dry-run
  chronos migrate tenants --assign acme --dry-run")]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    Messaging(MessagingArgs),
    Tenants(TenantsArgs),
}

/// Assign a tenant to the records of a database without one, so that this tenant sees them where several meet in
/// that database.
///
/// Entries with one database, and contexts of version 1 with a tenant, see the records of their tenant alone;
/// what was written before, or without a tenant, belongs to none. The options that lead to a database choose
/// which one. Running it again continues it and changes nothing that is done. What is printed is one JSON
/// line. The exit code is 1 if others kept changing some documents meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos migrate tenants --assign acme --dry-run
  chronos migrate tenants --assign acme --config v1.json --database shop
  chronos migrate tenants --assign acme --type logs -c audit")]
struct TenantsArgs {
    /// The tenant that they get.
    #[arg(long, value_name = "ID")]
    assign: String,
    /// Only this collection.
    #[arg(short, long, value_name = "COLL")]
    collection: Option<String>,
    /// Only count what would be done.
    #[arg(long)]
    dry_run: bool,
}

async fn tenants(globals: &Globals, args: TenantsArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut route = session.route_of(&args.assign);
    route.collection = args.collection;
    let mut migrate = session.chronos.migrate_tenants(route, args.assign);
    if args.dry_run {
        migrate = migrate.dry_run();
    }
    let done = migrate.await?;
    session.close().await?;
    Output::new().value(&done.to_json())?;
    if done.left == 0 {
        return Ok(());
    }
    Err(Failure::said(&format!("others changed {} documents meanwhile; run it again", done.left)))
}

/// Create the collections and indexes of every messaging database, and bring the documents of all tenants there
/// and into today's shape.
///
/// With --from the documents of another configuration are copied, such as of one database for all tenants
/// into one for each, or back. The source keeps them. Running it again continues it and changes nothing that
/// is done. What is printed is one JSON line. The exit code is 1 if some documents could not be converted; they
/// stay where they are.
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
    match args.command {
        MigrateCommand::Messaging(args) => messaging(globals, args).await,
        MigrateCommand::Tenants(args) => tenants(globals, args).await,
    }
}

async fn messaging(globals: &Globals, args: MessagingArgs) -> Result<(), Failure> {
    let source = match &args.from {
        Some(file) => {
            let mut config = from_file(file)?;
            // Looking at a source creates nothing.
            absent_is_empty(&mut config);
            Some(Chronos::open(config)?)
        }
        None => None,
    };
    let session = if args.dry_run { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let mut migrate = session.chronos.migrate_messaging();
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
    session.close().await?;
    Output::new().value(&done.to_json())?;
    if done.problems == 0 {
        return Ok(());
    }
    Err(Failure::said(&format!("{} of {} documents stay where they are", done.problems, done.read)))
}
