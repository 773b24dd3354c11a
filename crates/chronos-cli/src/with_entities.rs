//! `chronos with-entities`.

use chronos_db::{EntityMapping, Error, InsertWithEntities, Json};
use clap::{Args, Subcommand};

use crate::args::{Among, CollectionArg, ItemArg, WriteArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;

/// Records that carry copies of other records, their entities, which have collections of their own.
///
/// A mapping is a JSON list of {property, collection, keyProperty, databaseType?, tier?}: which property of
/// the record is an entity, and in which collection it is found by which of its own properties.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos with-entities insert -c orders --mapping mapping.json \\
    '{\"orderId\": \"O-1\", \"customer\": {\"customerId\": \"C-1\", \"name\": \"Ada\"}}'
  chronos with-entities get -c orders --mapping mapping.json orderId=O-1")]
pub(crate) struct WithEntitiesArgs {
    #[command(subcommand)]
    command: WithEntitiesCommand,
}

#[derive(Debug, Subcommand)]
enum WithEntitiesCommand {
    Insert(InsertArgs),
    Get(GetArgs),
}

/// The mapping.
#[derive(Debug, Args)]
struct MappingArg {
    /// The mapping: JSON, a file, or `-` for standard input.
    #[arg(long, value_name = "JSON|FILE|-")]
    mapping: String,
}

/// Create a record, and create or enrich its entities: {id, ov, cv, at, entities: {PROPERTY: {id,
/// operation}}, atomic}.
///
/// Everything is written in one transaction where the store has them and all is on one connection (`atomic`
/// is true then), elsewhere one after the other. If something fails there, entities that were updated are
/// restored, and the error names those that were created, which stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos with-entities insert -c orders --mapping mapping.json order.json
  chronos with-entities insert -c orders --mapping mapping.json - \\
    --actor shop < order.json")]
struct InsertArgs {
    #[command(flatten)]
    of: CollectionArg,
    #[command(flatten)]
    mapping: MappingArg,
    /// The document: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    #[command(flatten)]
    write: WriteArg,
}

/// Show a record, and its entities as they are now: {record, entities: {PROPERTY: entity}}.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos with-entities get -c orders --mapping mapping.json \\
    64f0c0ffee64f0c0ffee64f0
  chronos with-entities get -c orders --mapping mapping.json orderId=O-1")]
struct GetArgs {
    #[command(flatten)]
    item: ItemArg,
    #[command(flatten)]
    mapping: MappingArg,
}

impl MappingArg {
    fn read(&self) -> Result<Vec<EntityMapping>, Failure> {
        let mappings = input::json(&self.mapping, "the mapping")?;
        let list = mappings.as_array().ok_or_else(|| {
            Failure::wrong("the mapping is a JSON list of {property, collection, keyProperty}")
        })?;
        let read = |(at, mapping): (usize, &Json)| {
            let named = |error: Error| Failure::wrong(format!("the mapping, [{at}]: {}", error.message()));
            EntityMapping::from_json(mapping).map_err(named)
        };
        list.iter().enumerate().map(read).collect()
    }
}

pub(crate) async fn run(globals: &Globals, args: WithEntitiesArgs) -> Result<(), Failure> {
    match args.command {
        WithEntitiesCommand::Insert(args) => insert(globals, args).await,
        WithEntitiesCommand::Get(args) => get(globals, args).await,
    }
}

async fn insert(globals: &Globals, args: InsertArgs) -> Result<(), Failure> {
    let (mappings, document) = (args.mapping.read()?, input::document(&args.document)?);
    let mut session = globals.open_for_writing()?;
    let collection = session.collection(&args.of.collection)?;
    let insert = collection.insert_with_entities(document, mappings);
    let insert = args.write.apply(insert, InsertWithEntities::actor, InsertWithEntities::reason);
    let inserted = match insert.await {
        Ok(inserted) => inserted,
        // A client that is dropped open says good-bye to its server in the background, and panics if the runtime
        // ends meanwhile.
        Err(error) => return session.close().await.and(Err(error.into())),
    };
    for skipped in &inserted.skipped {
        note(&format!("`{}` is not an entity: {}", skipped.property, skipped.reason));
    }
    // What waits of the entities' collections, closing stores.
    session.flush(&collection).await?;
    session.close().await?;
    Output::new().value(&inserted.to_json())
}

async fn get(globals: &Globals, args: GetArgs) -> Result<(), Failure> {
    let mappings = args.mapping.read()?;
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Live).await?;
    let found = collection.get_with_entities(&id, mappings).await;
    session.close().await?;
    let found = found?;
    if found.record.is_none() {
        let missing = Error::not_found("there is no such item").during("get with entities");
        return Err(missing.in_collection(collection.name()).on_item(id).into());
    }
    Output::new().value(&found.to_json())
}
