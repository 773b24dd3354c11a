//! `chronos restore-collection`.

use std::time::Duration;

use chronos_db::{RestoreCollection, Timestamp};
use clap::Args;
use indicatif::ProgressBar;

use crate::args::{CollectionArg, WriteArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;

/// Bring every item back to how it was at a time or a version of the collection, each as a new version.
///
/// Items that did not exist then are deleted. Nothing is lost: restoring to the version before undoes it. If
/// it was stopped, run it again to continue.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos restore-collection -c users --at 2026-01-31T12:00:00Z --dry-run
  chronos restore-collection -c users --cv 2 --actor admin \\
    --reason \"bad import\"")]
pub(crate) struct RestoreCollectionArgs {
    #[command(flatten)]
    of: CollectionArg,
    #[command(flatten)]
    to: Target,
    /// Only count what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    write: WriteArg,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// To this version of the collection; -1 is the empty collection.
    #[arg(long, value_name = "N")]
    cv: Option<i64>,
    /// To this time.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

pub(crate) async fn run(globals: &Globals, args: RestoreCollectionArgs) -> Result<(), Failure> {
    let mut session = if args.dry_run { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let collection = session.existing(&args.of.collection).await?;
    let mut restore = args.write.apply(
        collection.restore_collection(),
        RestoreCollection::actor,
        RestoreCollection::reason,
    );
    if let Some(cv) = args.to.cv {
        restore = restore.to_cv(cv);
    }
    if let Some(at) = args.to.at {
        restore = restore.to_time(at);
    }
    if args.dry_run {
        restore = restore.dry_run();
    }
    // It draws on a terminal only.
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    let shown = bar.clone();
    let done = restore
        .on_progress(move |so_far| {
            let counts = (so_far.items, so_far.restored, so_far.removed);
            shown.set_message(format!("{} items: {} restored, {} removed", counts.0, counts.1, counts.2));
        })
        .await;
    bar.finish_and_clear();
    let done = done?;
    let mut summary = done.to_json();
    if args.dry_run {
        summary["dryRun"] = true.into();
    } else {
        session.flush(&collection).await?;
    }
    session.close().await?;
    Output::new().value(&summary)?;
    if done.failed == 0 {
        return Ok(());
    }
    note(&format!(
        "error: {} items of `{}` could not be restored; running it again tries them again",
        done.failed, args.of.collection
    ));
    Err(Failure::Reported)
}
