//! `chronos erase`.

use chronos_db::{Collection, Error, ItemId, Json};
use clap::Args;
use futures::TryStreamExt as _;

use crate::args::{Among, find};
use crate::failure::Failure;
use crate::input;
use crate::open::{Globals, Session};
use crate::output::Output;

/// Erase an item, or all that match a filter, for good: versions, objects, what is indexed of them, and what
/// names them in the fallback queue and in messages. Prints a certificate of each, and keeps it.
///
/// If it is stopped, `chronos worker` or the same command again continues it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # only counts
  chronos erase -c users email=a@example.org --reason \"ticket 4711\" \\
    --confirm --dry-run
  chronos erase -c users email=a@example.org --reason \"ticket 4711\" --confirm
  chronos erase -c users --filter '{\"plan\": \"trial\"}' --reason \"ticket 4712\" \\
    --confirm
  chronos erase --certificates")]
pub(crate) struct EraseArgs {
    /// The collection.
    #[arg(short, long, value_name = "COLL", required_unless_present = "certificates")]
    collection: Option<String>,
    /// The item: its id, or PROPERTY=VALUE, which names the one item whose indexed property has this value now; if
    /// there is none, the one that was deleted last.
    #[arg(value_name = "ITEM", required_unless_present_any = ["filter", "certificates"], conflicts_with_all = ["filter", "certificates"])]
    item: Option<String>,
    /// All items that match, in MongoDB's syntax, deleted ones too.
    #[arg(long, value_name = "JSON", conflicts_with = "certificates")]
    filter: Option<String>,
    /// Why: a rule or a ticket. It is kept, so it should name no person.
    #[arg(long, value_name = "WHY", required_unless_present = "certificates")]
    reason: Option<String>,
    /// Who erases it.
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Yes, for good.
    #[arg(long)]
    confirm: bool,
    /// Only count what would be erased.
    #[arg(long, conflicts_with = "certificates")]
    dry_run: bool,
    /// Show the certificates that are kept, or the one with this id.
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    certificates: Option<Option<String>>,
}

pub(crate) async fn run(globals: &Globals, args: EraseArgs) -> Result<(), Failure> {
    if let Some(id) = args.certificates {
        return certificates(globals, args.collection.as_deref(), id).await;
    }
    if !args.confirm && !args.dry_run {
        return Err(Failure::wrong("an erasure cannot be undone; say --confirm if that is meant"));
    }
    let filter =
        args.filter.as_deref().map(|text| input::parse(text.as_bytes(), "the filter")).transpose()?;
    let session = if args.dry_run { globals.open_for_reading()? } else { globals.open_for_writing()? };
    let collection = session.existing(args.collection.as_deref().unwrap_or_default()).await?;
    let reason = args.reason.unwrap_or_default();
    match filter {
        Some(filter) => matching(session, &collection, filter, reason, args.actor, args.dry_run).await,
        None => {
            let item = args.item.as_deref().unwrap_or_default();
            let id = find(item, &collection, Among::Deleted).await?;
            one(session, &collection, id, reason, args.actor, args.dry_run).await
        }
    }
}

async fn one(
    mut session: Session,
    collection: &Collection,
    id: ItemId,
    reason: String,
    actor: Option<String>,
    dry_run: bool,
) -> Result<(), Failure> {
    let mut erase = collection.erase(&id).reason(reason);
    if let Some(actor) = actor {
        erase = erase.actor(actor);
    }
    let report = if dry_run {
        counted(erase.dry_run().await?.to_json())
    } else {
        let certificate = erase.await?;
        session.flush(collection).await?;
        certificate.to_json()
    };
    session.close().await?;
    Output::new().value(&report)
}

async fn matching(
    mut session: Session,
    collection: &Collection,
    filter: Json,
    reason: String,
    actor: Option<String>,
    dry_run: bool,
) -> Result<(), Failure> {
    let mut erase = collection.erase_where(filter).reason(reason);
    if let Some(actor) = actor {
        erase = erase.actor(actor);
    }
    let mut out = Output::new();
    if dry_run {
        let mut counts = erase.dry_run().await?;
        while let Some(counts) = counts.try_next().await? {
            out.line(&counted(counts.to_json()))?;
        }
    } else {
        let mut certificates = erase.stream().await?;
        while let Some(certificate) = certificates.try_next().await? {
            out.line(&certificate.to_json())?;
        }
        session.flush(collection).await?;
    }
    out.finish()?;
    session.close().await
}

fn counted(mut counts: Json) -> Json {
    counts["dryRun"] = true.into();
    counts
}

async fn certificates(
    globals: &Globals,
    collection: Option<&str>,
    id: Option<String>,
) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut list = match collection {
        Some(name) => session.existing(name).await?.certificates(),
        // Which collection makes no difference to where the others lie.
        None => session.collection("any")?.certificates().of_every_collection(),
    };
    let Some(id) = id else {
        let mut certificates = list.stream().await?;
        let mut out = Output::new();
        while let Some(certificate) = certificates.try_next().await? {
            out.line(&certificate.to_json())?;
        }
        out.finish()?;
        return session.close().await;
    };
    list = list.id(id.as_str());
    let found = list.await?.pop();
    session.close().await?;
    let certificate = found.ok_or_else(|| Error::not_found(format!("there is no certificate {id}")))?;
    Output::new().value(&certificate.to_json())
}
