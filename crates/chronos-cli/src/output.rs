//! What goes to stdout (JSON) and to stderr (everything else).

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use chronos_db::Json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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

    /// One value on one line that is out when this returns: who reads along acts on it, or it stands for
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

/// One line on stderr.
pub(crate) fn note(line: &str) {
    // If not even stderr can be written, there is nowhere left to say so; `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "{line}");
}

/// From here on, events of our libraries go to stderr, and of those below them the warnings.
pub(crate) fn init_tracing() {
    let ours = ["chronos_db", "chronow"].map(|library| (library, LevelFilter::INFO));
    let told = Targets::new().with_default(LevelFilter::WARN).with_targets(ours);
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false))
        .with(told)
        .init();
}
