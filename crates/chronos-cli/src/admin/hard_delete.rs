//! `chronos admin hard-delete`.

use chronos_db::HardDelete;
use clap::Args;

use super::ConfirmArg;
use crate::args::{Among, ItemArg, WriteArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Erase an item for good, where the configuration says `hardDeleteEnabled`, and print the keys of its objects.
/// `chronos erase` does the same everywhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin hard-delete -c users email=a@example.org --dry-run
  chronos admin hard-delete -c users email=a@example.org \\
    --reason \"ticket 4711\" --confirm")]
pub(crate) struct HardDeleteArgs {
    #[command(flatten)]
    item: ItemArg,
    #[command(flatten)]
    write: WriteArg,
    #[command(flatten)]
    confirm: ConfirmArg,
}

pub(super) async fn run(globals: &Globals, args: HardDeleteArgs) -> Result<(), Failure> {
    let is_dry_run = args.confirm.is_dry_run();
    let mut session = if is_dry_run { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let collection = session.existing(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Deleted).await?;
    let mut delete = args.write.apply(collection.hard_delete(&id), HardDelete::actor, HardDelete::reason);
    if is_dry_run {
        delete = delete.dry_run();
    }
    let deleted = delete.await?;
    if !is_dry_run {
        session.flush(&collection).await?;
    }
    session.close().await?;
    Output::new().value(&deleted.to_json())
}
