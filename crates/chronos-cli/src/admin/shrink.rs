//! `chronos admin shrink`.

use clap::Args;

use super::ConfirmArg;
use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Take payloads out of heads that `devShadow` keeps there: those older than `ttlHours`, and those larger than
/// `maxBytesPerDoc`; where it is off, all of them.
///
/// Every payload is in its version row or in object storage as well. Workers do the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin shrink -c users --dry-run
  chronos admin shrink -c users --confirm")]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// All of them, whatever their age and size.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    confirm: ConfirmArg,
}

pub(super) async fn run(globals: &Globals, args: ShrinkArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let mut shrink = collection.shrink_shadows();
    if args.all {
        shrink = shrink.all();
    }
    if args.confirm.is_dry_run() {
        shrink = shrink.dry_run();
    }
    let shrunk = shrink.await?;
    session.close().await?;
    Output::new().value(&shrunk.to_json())
}
