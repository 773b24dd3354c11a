//! Prometheus' own checks of rules and of what is scraped.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs promtool, which `scripts/services up` installs and `scripts/services env` names, with this input.
///
/// # Panics
/// If it cannot be run, or finds something: what it said is the message.
#[track_caller]
pub fn promtool(args: &[&str], input: &str) {
    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let child = Command::new(&program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}): `scripts/services up` installs it, `scripts/services env` names it")
    });
    let stdin = child.stdin.take();
    // One that says what is wrong before it has read everything is heard all the same.
    drop(stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
    let said = child.wait_with_output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(said.status.success(), "{program} {args:?}: {}{}", text(&said.stdout), text(&said.stderr));
}
