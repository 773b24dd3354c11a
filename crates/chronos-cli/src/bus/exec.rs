//! A command that handles messages.

use std::io;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use chronos_db::json;
use chronow::{Message, Outcome};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// Runs the command with the payload as its input. It succeeds if the command does.
pub(super) async fn exec(command: &str, message: &Message<Bytes>) -> Result<(), Outcome> {
    let failed = |reason: String| Outcome::Retry { reason, delay: None };
    let mut child =
        start(command, message).map_err(|error| failed(format!("the command cannot be started: {error}")))?;
    let status = tokio::select! {
        status = feed(&mut child, &message.payload) => status.map_err(|error| failed(format!("the command cannot be waited for: {error}")))?,
        // The child ends with its handle.
        why = message.cancelled() => return Err(failed(format!("the command was broken off: {why:?}"))),
    };
    if status.success() { Ok(()) } else { Err(failed(format!("the command ended with {status}"))) }
}

fn start(command: &str, message: &Message<Bytes>) -> io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).kill_on_drop(true);
    shell.env("CHRONOS_ID", message.id()).env("CHRONOS_DELIVERIES", message.deliveries().to_string());
    shell
        .env("CHRONOS_HEADERS", json!(message.headers()).to_string())
        .env("CHRONOS_KEY", message.key().unwrap_or_default());
    // Our own output is one JSON line a message; what the command says goes beside it.
    shell.stdin(Stdio::piped()).stdout(Stdio::from(io::stderr())).spawn()
}

async fn feed(child: &mut Child, payload: &[u8]) -> io::Result<ExitStatus> {
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(payload).await {
            // It need not read what it is given.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => drop(stdin),
        }
    }
    child.wait().await
}
