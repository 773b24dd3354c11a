//! `chronos export`.

use chronos_db::List;
use clap::Args;
use futures::TryStreamExt as _;

use crate::args::{CollectionArg, PointArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Print every live document, one per line, now or as it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos export -c companies > today.ndjson
  chronos export -c companies --at 2015-12-31 > then.ndjson
  chronos export -c companies --cv 2 --view")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    of: CollectionArg,
    #[command(flatten)]
    point: PointArg,
    /// {id, ov, cv, at, item} with `_system` in the item, instead of the bare document.
    #[arg(long)]
    view: bool,
}

pub(crate) async fn run(globals: &Globals, args: ExportArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let mut out = Output::new();
    let mut views = args.point.apply(collection.list(), List::as_of, List::as_of_cv).stream().await?;
    while let Some(view) = views.try_next().await? {
        out.line(&if args.view { view.to_json() } else { view.document() })?;
    }
    drop(views);
    out.finish()?;
    session.close().await
}
