//! `chronos demo`.

use clap::Args;

use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Shows what this is about, on a real history.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos demo")]
pub(crate) struct DemoArgs {}

pub(crate) async fn run(globals: &Globals, _args: DemoArgs) -> Result<(), Failure> {
    let opened = globals.open_for_writing()?;
    Output::new().value(&opened.chronos.config().describe())?;
    opened.close().await
}
