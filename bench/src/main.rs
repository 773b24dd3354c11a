//! Scenarios against ceilings that are measured in the same run by code in this crate.
//!
//! ```text
//! cargo run --release -p bench -- list
//! cargo run --release -p bench -- [--json] [--large] [--dir PATH] records
//! cargo run --release -p bench -- [--json] bus
//! cargo run --release -p bench -- mongo_creates list_50
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

mod baseline;
mod bench_store;
mod disk;
mod machine;
mod measure;
mod report;
mod scenarios;
mod server;
mod stored;
mod targets;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Whatever goes wrong ends the scenario with its message.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Measures scenarios against ceilings.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Scenarios by name, `records` or `bus` for all of a group, `list` for their names.
    #[arg(required_unless_present = "worker")]
    scenarios: Vec<String>,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// The sizes of the targets (a million heads, 100,000 versions): minutes, and gigabytes of MongoDB.
    #[arg(long)]
    large: bool,
    /// Where embedded stores and objects are written; a disk, since waiting for it is the point.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Rounds of each side after a warm-up; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What a process that this program started has to do.
    #[arg(long, hide = true)]
    worker: Option<String>,
}

/// What every scenario goes by.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) large: bool,
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(Arguments::parse())));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// False if a scenario failed. A target that is missed is marked, but is not a failure: machines differ.
async fn run(arguments: Arguments) -> Result<bool> {
    if let Some(task) = &arguments.worker {
        return scenarios::work(task).await.map(|()| true);
    }
    if arguments.scenarios.iter().any(|name| name == "list") {
        for scenario in scenarios::ALL {
            println!("{:<20} {}", scenario.name, scenario.about);
        }
        return Ok(true);
    }
    let chosen = scenarios::choose(&arguments.scenarios)?;
    std::fs::create_dir_all(&arguments.dir)?;
    let context = Context {
        large: arguments.large,
        dir: arguments.dir.canonicalize()?,
        rounds: arguments.rounds.max(1),
        round: Duration::try_from_secs_f64(arguments.seconds)?,
    };
    let machine = machine::describe(&context).await;
    if !arguments.json {
        println!("{}", machine::sentence(&machine));
        println!("{}", report::heading());
    }
    let mut complete = true;
    for scenario in chosen {
        match scenarios::run(scenario.name, &context).await {
            Ok(lines) => {
                for line in lines {
                    if arguments.json {
                        println!("{}", line.to_json(&machine));
                    } else {
                        println!("{line}");
                    }
                }
            }
            Err(failure) => {
                complete = false;
                eprintln!("bench: {}: {failure}", scenario.name);
            }
        }
    }
    Ok(complete)
}
