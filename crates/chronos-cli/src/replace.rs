//! `chronos replace`.

use chronos_db::Replace;
use clap::Args;

use crate::args::{Among, ChangeArg, ItemArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Replace the whole document of an item.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos replace -c users email=a@example.org user.json --actor admin")]
pub(crate) struct ReplaceArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The new document: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    #[command(flatten)]
    change: ChangeArg,
}

pub(crate) async fn run(globals: &Globals, args: ReplaceArgs) -> Result<(), Failure> {
    let document = input::document(&args.document)?;
    let session = globals.open_for_writing()?;
    let collection = session.changeable(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Live).await?;
    let made = args
        .change
        .apply(collection.replace(&id, document), Replace::actor, Replace::reason, Replace::expect_ov)
        .await?;
    session.end(&collection, &made).await
}
