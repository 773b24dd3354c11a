//! `chronos admin health`, `backends`, `storage-check` and `spaces-check`.

use std::time::Duration;

use chronos_db::Json;

use crate::failure::{Failure, Failures};
use crate::open::{Globals, Session};
use crate::output::Output;
use crate::stderr::note;

/// A store that does not answer must not keep the command from ending.
const CLOSE: Duration = Duration::from_millis(500);

/// Closes what was only looked at: what is away takes its time to be closed, and nothing was written to it.
pub(super) async fn close(session: &Session) {
    // What could be said of a store that does not answer has been said.
    let _ = session.chronos.shutdown_within(CLOSE).await;
}

pub(super) async fn health(globals: &Globals) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let health = session.chronos.admin().health().await;
    close(&session).await;
    let health = health?;
    Output::new().value(&health.to_json())?;
    let mut failures = Failures::default();
    for ping in health.connections.iter().chain(&health.storages).filter(|ping| !ping.is_ok()) {
        failures.say(&format!("`{}` does not answer", ping.name));
    }
    failures.end()
}

pub(super) fn backends(globals: &Globals) -> Result<(), Failure> {
    let session = globals.open_for_writing()?;
    let mut out = Output::new();
    for backend in session.chronos.admin().backends() {
        out.line(&backend.to_json())?;
    }
    out.finish()
}

pub(super) async fn storage(globals: &Globals) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let checked = session.chronos.admin().check_storage().await;
    close(&session).await;
    let checked = checked?;
    let lines = checked.iter().map(|storage| (storage.to_json(), storage.is_ok()));
    print(lines.collect(), "could not be reached")
}

pub(super) async fn spaces(globals: &Globals) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let checked = session.chronos.admin().check_spaces().await;
    close(&session).await;
    let checked = checked?;
    let lines = checked.iter().map(|space| (space.to_json(), space.is_valid()));
    print(lines.collect(), "are not valid as DigitalOcean Spaces")
}

/// One storage per line; an error if one is not as it should be.
fn print(lines: Vec<(Json, bool)>, wrong: &str) -> Result<(), Failure> {
    let mut out = Output::new();
    for (line, _) in &lines {
        out.line(line)?;
    }
    out.finish()?;
    if lines.is_empty() {
        note("no database of the configuration has an object storage");
    }
    let count = lines.iter().filter(|(_, ok)| !ok).count();
    if count == 0 {
        return Ok(());
    }
    Err(Failure::said(&format!("{count} of {} object storages {wrong}", lines.len())))
}
