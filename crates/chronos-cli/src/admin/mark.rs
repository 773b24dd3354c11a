//! `chronos admin mark-processed`.

use std::time::Duration;

use clap::Args;

use super::ConfirmArg;
use crate::args::{Among, CollectionArg, find};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Mark items as processed: one, or all whose newest version was written this many hours ago and is stored as an
/// object.
///
/// `_system.state` of the item says so then. No version is made. Items that are marked already are left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin mark-processed -c users --ttl-hours 24 --dry-run
  chronos admin mark-processed -c users --ttl-hours 24 --confirm
  chronos admin mark-processed -c users email=a@example.org --confirm")]
pub(crate) struct MarkProcessedArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// This item alone, whatever its age: its id, or PROPERTY=VALUE.
    #[arg(value_name = "ITEM", required_unless_present = "ttl_hours", conflicts_with = "ttl_hours")]
    item: Option<String>,
    /// Every item whose newest version is at least this old.
    #[arg(long, value_name = "HOURS")]
    ttl_hours: Option<u32>,
    /// At most this many items.
    #[arg(long, value_name = "N", requires = "ttl_hours")]
    limit: Option<u64>,
    #[command(flatten)]
    confirm: ConfirmArg,
}

pub(super) async fn run(globals: &Globals, args: MarkProcessedArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let is_dry_run = args.confirm.is_dry_run();
    let report = match &args.item {
        Some(item) => {
            let id = find(item, &collection, Among::Live).await?;
            let mark = collection.mark_item_as_processed(&id);
            if is_dry_run { mark.dry_run().await? } else { mark.await? }.to_json()
        }
        None => {
            // One of the two is there.
            let hours = u64::from(args.ttl_hours.unwrap_or(u32::MAX));
            let mut mark = collection.mark_items_as_processed_by_ttl(Duration::from_secs(hours * 3_600));
            if let Some(items) = args.limit {
                mark = mark.max_items(items);
            }
            if is_dry_run { mark.dry_run().await? } else { mark.await? }.to_json()
        }
    };
    session.close().await?;
    Output::new().value(&report)
}
