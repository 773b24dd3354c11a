//! What goes to stderr: everything but JSON.

use std::io::{self, Write as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// One line on stderr.
pub(crate) fn note(line: &str) {
    // If not even stderr can be written, there is nowhere left to say so; `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "{line}");
}

/// From here on, events of our libraries go to stderr, and of those below them the warnings.
pub(crate) fn init_tracing() {
    let ours = ["chronos_db", "chronow"].map(|library| (library, LevelFilter::INFO));
    // What was done, and what failed, a command says itself.
    let categories = [
        ("chronos-operation", LevelFilter::OFF),
        ("chronos-performance", LevelFilter::INFO),
        ("chronos-error", LevelFilter::OFF),
    ];
    let targets = Targets::new().with_default(LevelFilter::WARN).with_targets(ours).with_targets(categories);
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false))
        .with(targets)
        .init();
}
