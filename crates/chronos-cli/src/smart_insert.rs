//! `chronos smart-insert`.

use chronos_db::SmartInsert;
use clap::Args;

use crate::args::{CollectionArg, WriteArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Enrich the live item that has the same unique properties, or create one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos smart-insert -c users '{\"email\": \"a@example.org\", \"plan\": \"pro\"}' \\
    --unique email")]
pub(crate) struct SmartInsertArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// The document: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    /// The properties that name the item.
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    unique: Vec<String>,
    #[command(flatten)]
    write: WriteArg,
    /// The function that computed the document; kept in `_system.functionIds`.
    #[arg(long, value_name = "F")]
    function_id: Option<String>,
}

pub(crate) async fn run(globals: &Globals, args: SmartInsertArgs) -> Result<(), Failure> {
    let document = input::document(&args.document)?;
    let session = globals.open_for_writing()?;
    let collection = session.collection(&args.of.collection)?;
    let keys: Vec<&str> = args.unique.iter().map(String::as_str).collect();
    let mut insert =
        args.write.apply(collection.smart_insert(document, &keys), SmartInsert::actor, SmartInsert::reason);
    if let Some(function) = args.function_id {
        insert = insert.function_id(function);
    }
    let made = insert.await?;
    session.end(&collection, &made).await
}
