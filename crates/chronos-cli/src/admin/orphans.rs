//! `chronos admin orphans`.

use std::time::Duration;

use clap::Args;

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Remove objects of large payloads whose commit never came, and what came back of items that were erased.
///
/// Only objects that were noted when they were stored are removed, and none that a version names. Workers do the
/// same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin orphans -c users")]
pub(crate) struct OrphansArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Leave alone what was begun less than this many hours ago: it may belong to a write under way.
    #[arg(long, value_name = "HOURS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    older_than_hours: u32,
}

pub(super) async fn run(globals: &Globals, args: OrphansArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let age = Duration::from_secs(u64::from(args.older_than_hours) * 3_600);
    let mut report = chronos_db::json!({ "collection": collection.name() });
    for (key, value) in collection.collect_orphans(age).await?.to_json().as_object().into_iter().flatten() {
        report[key.as_str()] = value.clone();
    }
    session.close().await?;
    Output::new().value(&report)
}
