//! `chronos create`.

use chronos_db::{Create, Timestamp};
use clap::Args;

use crate::args::{CollectionArg, WriteArg};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;

/// Create an item.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos create -c users '{\"email\": \"a@example.org\"}' --actor signup
  chronos create -c users user.json
  echo '{\"email\": \"b@example.org\"}' | chronos create -c users -")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// The document: JSON, a file, or `-` for standard input.
    #[arg(value_name = "JSON|FILE|-", allow_hyphen_values = true)]
    document: String,
    #[command(flatten)]
    write: WriteArg,
    /// When it happened, for what is recorded later.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

pub(crate) async fn run(globals: &Globals, args: CreateArgs) -> Result<(), Failure> {
    let document = input::document(&args.document)?;
    let session = globals.open_for_writing()?;
    let collection = session.collection(&args.of.collection)?;
    let mut create = args.write.apply(collection.create(document), Create::actor, Create::reason);
    if let Some(at) = args.at {
        create = create.at(at);
    }
    let made = create.await?;
    session.end(&collection, &made).await
}
