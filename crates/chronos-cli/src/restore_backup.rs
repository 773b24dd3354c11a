//! `chronos restore-backup`.

use std::path::PathBuf;

use chronos_db::RestoreBackup;
use clap::Args;

use crate::args::{CollectionArg, PointArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;

/// Build a collection from a backup, on whatever stores: the same items, versions, numbers, times and documents.
///
/// It is restored to a collection that is not there yet. Writes to it are refused until that is done; if it was stopped,
/// run it again to continue.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos restore-backup -c users --into users-again
  chronos restore-backup -c users --from backups --at 2026-01-31T12:00:00Z \\
    --into then
  chronos restore-backup -c users --config mongodb.json --from backups")]
pub(crate) struct RestoreBackupArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Read the backup in this folder instead of the backups bucket.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The database that was backed up, where the folder has backups of several.
    #[arg(long, value_name = "NAME", requires = "from")]
    from_database: Option<String>,
    #[command(flatten)]
    point: PointArg,
    /// Restore to a collection of this name; without it, of the same.
    #[arg(long, value_name = "COLL")]
    into: Option<String>,
    /// Restore to the database of this tenant.
    #[arg(long, value_name = "ID")]
    into_tenant: Option<String>,
}

pub(crate) async fn run(globals: &Globals, args: RestoreBackupArgs) -> Result<(), Failure> {
    let session = globals.open_for_writing()?;
    let source = session.collection(&args.of.collection)?;
    let mut route = session.route_to(args.into.as_deref().unwrap_or(&args.of.collection));
    if let Some(tenant) = args.into_tenant {
        route = route.tenant(tenant);
    }
    let target = session.chronos.with(route)?;
    let mut restore = target.restore_backup().of(&source);
    if let Some(folder) = args.from {
        restore = restore.from_folder(folder);
    }
    if let Some(database) = args.from_database {
        restore = restore.from_database(database);
    }
    let restored = args.point.apply(restore, RestoreBackup::to_time, RestoreBackup::to_cv).await?;
    session.close().await?;
    Output::new().value(&restored.to_json())?;
    if restored.damaged == 0 {
        return Ok(());
    }
    note(&format!(
        "error: DAMAGE: {} versions were damaged when they were backed up, and are now; everything else is restored",
        restored.damaged
    ));
    Err(Failure::Reported)
}
