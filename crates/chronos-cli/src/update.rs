//! `chronos update`.

use chronos_db::Update;
use clap::Args;

use crate::args::{Among, ChangeArg, ItemArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Change top-level properties of an item; the others stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos update -c users 64f0c0ffee64f0c0ffee64f0 '{\"status\": \"verified\"}'
  chronos update -c users email=b@example.org '{\"status\": \"verified\"}' \\
    --expect-ov 0 --reason \"email verified\"")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The properties: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    #[command(flatten)]
    change: ChangeArg,
}

pub(crate) async fn run(globals: &Globals, args: UpdateArgs) -> Result<(), Failure> {
    let document = input::document(&args.document)?;
    let session = globals.open_for_writing()?;
    let collection = session.changeable(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Live).await?;
    let made = args
        .change
        .apply(collection.update(&id, document), Update::actor, Update::reason, Update::expect_ov)
        .await?;
    session.end(&collection, &made).await
}
