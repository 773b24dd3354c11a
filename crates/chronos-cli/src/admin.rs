//! `chronos admin`.

mod buckets;
mod hard_delete;
mod look;
mod mark;
mod orphans;
mod shrink;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::open::Globals;

/// Look after connections, storages and buckets, and payloads that expire.
///
/// What changes or removes something wants --confirm, or --dry-run, which only counts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos admin health
  chronos admin storage-check
  chronos admin buckets --create --confirm
  chronos admin mark-processed -c users --ttl-hours 24 --confirm")]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Ask every connection and every object storage whether it answers; the exit code is 1 if one does not.
    #[command(after_help = "Examples:\n  chronos admin health")]
    Health,
    /// List every database that routes can lead to, one per line, without asking any of them.
    #[command(after_help = "Examples:\n  chronos admin backends")]
    Backends,
    /// Ask every object storage for its buckets, one storage per line; the exit code is 1 if one does not answer.
    #[command(after_help = "Examples:\n  chronos admin storage-check")]
    StorageCheck,
    /// Check every object storage against the rules of DigitalOcean Spaces, one storage per line; the exit code is 1 if
    /// one is not valid.
    #[command(after_help = "Examples:\n  chronos admin spaces-check")]
    SpacesCheck,
    Buckets(buckets::BucketsArgs),
    MarkProcessed(mark::MarkProcessedArgs),
    Shrink(shrink::ShrinkArgs),
    Orphans(orphans::OrphansArgs),
    HardDelete(hard_delete::HardDeleteArgs),
}

/// Whether something is done, or only counted.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArg {
    /// Do it.
    #[arg(long, required_unless_present = "dry_run")]
    confirm: bool,
    /// Only count what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl ConfirmArg {
    /// Whether nothing is changed, also where both options are given.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run || !self.confirm
    }
}

pub(crate) async fn run(globals: &Globals, args: AdminArgs) -> Result<(), Failure> {
    match args.command {
        AdminCommand::Health => look::health(globals).await,
        AdminCommand::Backends => look::backends(globals),
        AdminCommand::StorageCheck => look::storage(globals).await,
        AdminCommand::SpacesCheck => look::spaces(globals).await,
        AdminCommand::Buckets(args) => buckets::run(globals, args).await,
        AdminCommand::MarkProcessed(args) => mark::run(globals, args).await,
        AdminCommand::Shrink(args) => shrink::run(globals, args).await,
        AdminCommand::Orphans(args) => orphans::run(globals, args).await,
        AdminCommand::HardDelete(args) => hard_delete::run(globals, args).await,
    }
}
