//! `chronos admin buckets`.

use clap::Args;

use super::{ConfirmArg, look};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Look at every bucket that the configuration names; the exit code is 1 if one cannot be reached.
///
/// A bucket that is missing is created with its first object, where the credentials allow it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin buckets --dry-run
  chronos admin buckets --create --confirm")]
pub(crate) struct BucketsArgs {
    /// Create what is missing.
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    confirm: ConfirmArg,
}

pub(super) async fn run(globals: &Globals, args: BucketsArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut ensure = session.chronos.admin().ensure_buckets();
    if args.create {
        ensure = ensure.create();
    }
    if args.confirm.is_dry_run() {
        ensure = ensure.dry_run();
    }
    let ensured = ensure.await;
    look::close(&session).await;
    let ensured = ensured?;
    Output::new().value(&ensured.to_json())?;
    if ensured.is_ok() {
        return Ok(());
    }
    let wrong = ensured.bucket_statuses.iter().filter(|bucket| bucket.error.is_some()).count();
    Err(Failure::said(&format!("{wrong} of {} buckets could not be reached", ensured.buckets_checked)))
}
