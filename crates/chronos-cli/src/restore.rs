//! `chronos restore`.

use chronos_db::{Restore, Timestamp};
use clap::Args;

use crate::args::{Among, ChangeArg, ItemArg};
use crate::failure::Failure;
use crate::open::Globals;

/// Bring an earlier version of an item back, as a new version. A deleted item lives again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos restore -c users email=a@example.org --ov 3 --actor admin \\
    --reason \"wrong import\"
  chronos restore -c users 64f0c0ffee64f0c0ffee64f0 --at 2026-01-31T12:00:00Z")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    item: ItemArg,
    #[command(flatten)]
    to: Target,
    #[command(flatten)]
    change: ChangeArg,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// To the version with this number.
    #[arg(long, value_name = "N")]
    ov: Option<i64>,
    /// To the newest version at this time.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

pub(crate) async fn run(globals: &Globals, args: RestoreArgs) -> Result<(), Failure> {
    let session = globals.open_for_writing()?;
    let collection = session.changeable(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Deleted).await?;
    let mut restore =
        args.change.apply(collection.restore(&id), Restore::actor, Restore::reason, Restore::expect_ov);
    if let Some(ov) = args.to.ov {
        restore = restore.to_version(ov);
    }
    if let Some(at) = args.to.at {
        restore = restore.to_time(at);
    }
    let made = restore.await?;
    session.end(&collection, &made).await
}
