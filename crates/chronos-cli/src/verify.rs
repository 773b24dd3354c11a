//! `chronos verify`.

use std::time::Duration;

use clap::Args;

use crate::args::CollectionArg;
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// A repair stores what waits, for at most this long: what then still waits is not damage, and left to a
/// worker or the next write.
const STORING: Duration = Duration::from_secs(2);

/// Check every version of a collection against its payload, and every head against its versions.
///
/// What is printed last is one JSON line. The exit code is 0 only if nothing is damaged. Versions that wait
/// to be stored are not damage.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos verify -c users
  chronos verify -c users --repair")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// First roll lagging heads forward, store what waits, and remove objects whose commit never came.
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(globals: &Globals, args: VerifyArgs) -> Result<(), Failure> {
    // A repair creates nothing either where nothing is.
    let mut session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let mut verify = collection.verify();
    if args.repair {
        session.waiting = collection.flush(STORING).await?.waiting > 0;
        verify = verify.repair();
    }
    let found = verify.await?;
    session.close().await?;
    let mut out = Output::new();
    out.line(&found.to_json())?;
    out.finish()?;
    if found.is_clean() {
        return Ok(());
    }
    let (count, name) = (found.problem_count, collection.name());
    let advice = if args.repair { "" } else { "; `--repair` mends what a crash can leave" };
    Err(Failure::said(&format!("DAMAGE in `{name}`: {count} problems{advice}")))
}
