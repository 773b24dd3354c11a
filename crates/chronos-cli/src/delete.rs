//! `chronos delete`.

use chronos_db::Delete;
use clap::Args;

use crate::args::{Among, ChangeArg, ItemArg};
use crate::failure::Failure;
use crate::open::Globals;

/// Delete an item: it disappears from reads, its versions stay and `restore` brings it back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos delete -c users email=a@example.org --actor admin \\
    --reason \"asked for it\"
  chronos restore -c users email=a@example.org --ov 0")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    item: ItemArg,
    #[command(flatten)]
    change: ChangeArg,
}

pub(crate) async fn run(globals: &Globals, args: DeleteArgs) -> Result<(), Failure> {
    let session = globals.open_for_writing()?;
    let collection = session.changeable(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Live).await?;
    let made =
        args.change.apply(collection.delete(&id), Delete::actor, Delete::reason, Delete::expect_ov).await?;
    session.end(&collection, &made).await
}
