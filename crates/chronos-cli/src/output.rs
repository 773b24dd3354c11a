//! What goes to stdout: JSON.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use chronos_db::Json;

use crate::failure::Failure;

/// The standard output: JSON, one value a line.
#[derive(Debug)]
pub(crate) struct Output {
    to: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { to: BufWriter::with_capacity(64 * 1024, io::stdout()) }
    }

    /// One value on one line, in a moment: [`finish`](Self::finish) says when it must be out.
    pub(crate) fn line(&mut self, value: &Json) -> Result<(), Failure> {
        self.to.write_all(&value.to_vec()).map_err(failed)?;
        self.to.write_all(b"\n").map_err(failed)
    }

    /// One value on one line that is out when this returns: a program that reads along acts on it, or it stands for
    /// something done.
    pub(crate) fn now(&mut self, value: &Json) -> Result<(), Failure> {
        self.line(value)?;
        self.finish()
    }

    /// A line for people.
    pub(crate) fn text(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.to, "{line}").map_err(failed)
    }

    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(failed)
    }

    /// The one value that is the answer; on a terminal laid out for people.
    pub(crate) fn value(mut self, value: &Json) -> Result<(), Failure> {
        if io::stdout().is_terminal() {
            writeln!(self.to, "{value:#}").map_err(failed)?;
        } else {
            self.line(value)?;
        }
        self.finish()
    }
}

pub(crate) fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe { Failure::OutputClosed } else { Failure::Output(error) }
}
