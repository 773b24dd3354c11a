//! Children of a test: this very binary, started again for one of its tests, so that a fail point can kill it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use chronos_db::config::Config;
use chronos_db::fail::FailPoints;
use chronos_db::{Chronos, Env, Json};

use super::pairing::Pairing;

/// Runs `test`, a full path to a test that does nothing in an ordinary run, with its task in `variable`: what
/// `with` says, the pairing's configuration with `more`, and the fail points.
pub(super) async fn run(
    p: &Pairing,
    test: &str,
    variable: &str,
    more: &Json,
    points: &str,
    with: Json,
) -> Output {
    let mut command = command(p, test, variable, more, points, with);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

/// How [`run`] starts a child.
pub(super) fn command(
    p: &Pairing,
    test: &str,
    variable: &str,
    more: &Json,
    points: &str,
    with: Json,
) -> Command {
    let mut task = with;
    task["config"] = p.config(more);
    task["folder"] = p.folder().to_str().unwrap().into();
    task["points"] = points.into();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test.split_once("::").unwrap().1, "--nocapture"])
        .env(variable, task.to_string());
    command
}

/// Runs the child, which dies at one of the points; whether it got there.
pub(super) async fn dies_at(
    p: &Pairing,
    test: &str,
    variable: &str,
    more: &Json,
    points: &str,
    with: Json,
) -> bool {
    was_killed(&run(p, test, variable, more, points, with).await)
}

pub(super) fn was_killed(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    output.status.signal().is_some()
}

/// In the child: its task, and what it opens; none in an ordinary run.
pub(super) fn task(variable: &str) -> Option<(Json, Chronos)> {
    let task = Json::parse(&std::env::var(variable).ok()?).unwrap();
    let folder = Path::new(task["folder"].as_str().unwrap());
    let fail = FailPoints::parse(task["points"].as_str().unwrap()).unwrap();
    let config = Config::from_json(&task["config"], folder).unwrap();
    let chronos = Chronos::builder(config).env(Env { fail, ..Env::default() }).open().unwrap();
    Some((task, chronos))
}
