//! `chronos knowledge` and `chronos metadata`.

use chronos_db::{Chronos, GetTiered, Json, Timestamp};
use clap::Args;

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;
use crate::output::Output;

/// Show a record of the tiered knowledge: {data, tiersFound, tierRecords}.
///
/// It is that of the tenant; if there is none, that of the domain, else the generic one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos knowledge -c configs --filter '{\"key\": \"ui\"}' --tenant acme \\
    --domain production
  chronos knowledge -c configs --filter '{\"key\": \"ui\"}' --tenant acme --merge")]
pub(crate) struct KnowledgeArgs {
    #[command(flatten)]
    what: TieredArgs,
}

/// Show a record of the tiered metadata: {data, tiersFound, tierRecords}.
///
/// It is that of the tenant; if there is none, that of the domain, else the generic one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos metadata -c schemas --filter '{\"entityType\": \"user\"}' --tenant acme
  chronos metadata -c schemas --filter '{\"entityType\": \"user\"}' \\
    --domain saas --merge")]
pub(crate) struct MetadataArgs {
    #[command(flatten)]
    what: TieredArgs,
}

#[derive(Debug, Args)]
struct TieredArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Which record, in MongoDB's syntax.
    #[arg(long, value_name = "JSON")]
    filter: String,
    /// Lay the tiers over each other, the narrower over the wider.
    #[arg(long)]
    merge: bool,
    /// In a merge, keep every element of arrays that meet, equal ones too.
    #[arg(long, requires = "merge")]
    keep_duplicates: bool,
    /// In a merge, keep what a wider tier says.
    #[arg(long, requires = "merge")]
    preserve_existing: bool,
    /// As all tiers were at this time: 2015-12-31 or 2015-12-31T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

pub(crate) async fn knowledge(globals: &Globals, args: KnowledgeArgs) -> Result<(), Failure> {
    run(globals, args.what, |chronos, collection, filter| chronos.get_knowledge(collection, filter)).await
}

pub(crate) async fn metadata(globals: &Globals, args: MetadataArgs) -> Result<(), Failure> {
    run(globals, args.what, |chronos, collection, filter| chronos.get_metadata(collection, filter)).await
}

async fn run(
    globals: &Globals,
    args: TieredArgs,
    begin: fn(&Chronos, String, Json) -> GetTiered,
) -> Result<(), Failure> {
    let filter = input::parse(args.filter.as_bytes(), "the filter")?;
    let session = globals.open_for_reading()?;
    let mut get = begin(&session.chronos, args.of.collection, filter);
    if let Some(tenant) = &globals.tenant {
        get = get.tenant(tenant);
    }
    if let Some(domain) = &globals.domain {
        get = get.domain(domain);
    }
    if args.merge {
        get = get.merge();
    }
    if args.keep_duplicates {
        get = get.keep_duplicates();
    }
    if args.preserve_existing {
        get = get.preserve_existing();
    }
    if let Some(at) = args.at {
        get = get.as_of(at);
    }
    let found = get.await;
    session.close().await?;
    Output::new().value(&found?.to_json())
}
