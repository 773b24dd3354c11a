//! `chronos enrich`.

use chronos_db::Enrich;
use clap::Args;

use crate::args::{Among, ChangeArg, ItemArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Merge a patch deeply into an item: objects are merged, lists united.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos enrich -c users email=a@example.org \\
    '{\"tags\": [\"new\"], \"score\": {\"risk\": 0.1}}' --function-id scorer@v2")]
pub(crate) struct EnrichArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The patch, or an array of patches: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    #[command(flatten)]
    change: ChangeArg,
    /// The function that computed the patch; kept in `_system.functionIds`.
    #[arg(long, value_name = "F")]
    function_id: Option<String>,
}

pub(crate) async fn run(globals: &Globals, args: EnrichArgs) -> Result<(), Failure> {
    let document = input::document(&args.document)?;
    let session = globals.open_for_writing()?;
    let collection = session.changeable(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Live).await?;
    let mut enrich =
        args.change.apply(collection.enrich(&id, document), Enrich::actor, Enrich::reason, Enrich::expect_ov);
    if let Some(function) = args.function_id {
        enrich = enrich.function_id(function);
    }
    let made = enrich.await?;
    session.end(&collection, &made).await
}
