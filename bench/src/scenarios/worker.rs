//! Processes that this program starts, and what they have to do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Result;

/// What a process that this program starts has to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Writes a collection together with others.
    Write(Writing),
    /// Restores a collection; alone, so that its memory can be measured.
    Restore(Restoring),
    /// Rolls a collection up; alone, as well.
    RollUp(RollingUp),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Writing {
    pub(super) database: String,
    pub(super) collection: String,
    pub(super) number: usize,
    pub(super) millis: u64,
}

/// What a process has to restore.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Restoring {
    pub(super) database: String,
    pub(super) items: usize,
}

/// What a process has to roll up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RollingUp {
    pub(super) database: String,
    /// The folder of the objects.
    pub(super) objects: PathBuf,
    /// Versions of an item that stay.
    pub(super) kept: u32,
}

/// Says that this process is ready, and waits until all are.
pub(super) async fn ready() -> Result<()> {
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose()).await??;
    Ok(())
}

/// A started process; ended with this.
pub(super) struct Worker {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    /// Blocks until it is ready.
    pub(super) fn start(task: &Task) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("a worker has no output")?;
        let mut worker = Self { process, lines: BufReader::new(output).lines() };
        match worker.lines.next().transpose()? {
            Some(line) if line == "ready" => Ok(worker),
            other => Err(format!("a worker is not ready: {other:?}").into()),
        }
    }

    pub(super) fn go(&mut self) -> Result<()> {
        let input = self.process.stdin.as_mut().ok_or("a worker has no input")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// Blocks until it is done.
    pub(super) fn seen<T: DeserializeOwned>(mut self) -> Result<T> {
        let line = self.lines.next().transpose()?.ok_or("a worker ended without saying what it saw")?;
        let seen = serde_json::from_str(&line)?;
        let status = self.process.wait()?;
        if status.success() { Ok(seen) } else { Err(format!("a worker ended with {status}").into()) }
    }
}
