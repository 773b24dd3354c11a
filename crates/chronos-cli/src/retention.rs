//! `chronos rollup`, `chronos prune` and `chronos manifests`.

use clap::Args;

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Write versions that lie beyond `retention.ver` into manifests: objects from which they stay readable.
///
/// They stay in the index, too, until they are pruned. Prints one line of JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos rollup -c users --dry-run
  chronos rollup -c users")]
pub(crate) struct RollupArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
}

/// Take versions that lie beyond `retention.ver` out of the index. What is in no manifest yet is rolled up first.
///
/// Nothing that can be asked changes its answer: reads go on in the manifests. A worker prunes by itself. Prints one
/// line of JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos prune -c users --dry-run
  chronos prune -c users")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
}

/// List the manifests of a collection, one per line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos manifests -c users")]
pub(crate) struct ManifestsArgs {
    #[command(flatten)]
    of: CollectionArg,
}

pub(crate) async fn roll_up(globals: &Globals, args: RollupArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut roll_up = session.existing(&args.of.collection).await?.roll_up();
    if args.dry_run {
        roll_up = roll_up.dry_run();
    }
    let done = roll_up.await?;
    session.close().await?;
    let mut out = Output::new();
    out.line(&done.to_json())?;
    out.finish()
}

pub(crate) async fn prune(globals: &Globals, args: PruneArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut prune = session.existing(&args.of.collection).await?.prune();
    if args.dry_run {
        prune = prune.dry_run();
    }
    let done = prune.await?;
    session.close().await?;
    let mut out = Output::new();
    out.line(&done.to_json())?;
    out.finish()
}

pub(crate) async fn manifests(globals: &Globals, args: ManifestsArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let found = session.existing(&args.of.collection).await?.manifests().await?;
    session.close().await?;
    let mut out = Output::new();
    for manifest in found {
        out.line(&manifest.to_json())?;
    }
    out.finish()
}
