//! `chronos`: versioned records from a shell.

mod demo;
mod failure;
mod open;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::open::Globals;

/// Versioned JSON records: every write is a new version, and every version stays readable.
///
/// Without --config and --data the configuration is ./chronos.json, and if there is none, an embedded store in ./chronos-data. All commands print
/// JSON: one value, or one a line. The exit code is 0 for success, 1 for a failure and 2 for input that is wrong.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    match run(&globals, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(globals.verbose),
    }
}

async fn run(globals: &Globals, command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(globals, args).await,
    }
}
