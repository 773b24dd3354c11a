//! `chronos get`.

use chronos_db::{Error, Get};
use clap::Args;

use crate::args::{Among, ItemArg, PointArg, ShowArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Show one item, now or as it was: {id, ov, cv, at, item}.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos get -c users 64f0c0ffee64f0c0ffee64f0
  chronos get -c users email=a@example.org --ov 0
  chronos get -c users email=a@example.org --at 2026-01-31T12:00:00Z \\
    --project status,_system")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The version with this number.
    #[arg(long, value_name = "N", conflicts_with_all = ["at", "cv"])]
    ov: Option<i64>,
    #[command(flatten)]
    point: PointArg,
    #[command(flatten)]
    show: ShowArg,
}

pub(crate) async fn run(globals: &Globals, args: GetArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.item.of.collection).await?;
    let past = args.ov.is_some() || args.point.at.is_some() || args.point.cv.is_some();
    let among = if past || args.show.include_deleted { Among::Deleted } else { Among::Live };
    let id = args.item.find(&collection, among).await?;
    let get = args.point.apply(collection.get(&id), Get::as_of, Get::as_of_cv);
    let mut get = args.show.apply(get, Get::include_deleted, Get::project, Get::presign);
    if let Some(ov) = args.ov {
        get = get.version(ov);
    }
    let found = get.await?;
    session.close().await?;
    let view = found.ok_or_else(|| {
        let what = if past { "there was no such item, or no such version" } else { "there is no such item" };
        Error::not_found(what).during("get").in_collection(collection.name()).on_item(id)
    })?;
    Output::new().value(&view.to_json())
}
