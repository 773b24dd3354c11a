//! `chronos history`.

use clap::Args;
use futures::TryStreamExt as _;

use crate::args::{Among, ItemArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Print the versions of an item, one per line: what, when, who and why. Deleted items have a history, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos history -c users email=a@example.org
  chronos history -c users 64f0c0ffee64f0c0ffee64f0 --newest-first | head -1")]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The newest version first.
    #[arg(long)]
    newest_first: bool,
}

pub(crate) async fn run(globals: &Globals, args: HistoryArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Deleted).await?;
    let mut history = collection.history(&id);
    if args.newest_first {
        history = history.newest_first();
    }
    let mut out = Output::new();
    let mut versions = history.stream().await?;
    while let Some(version) = versions.try_next().await? {
        out.line(&version.to_json())?;
    }
    drop(versions);
    out.finish()?;
    session.close().await
}
