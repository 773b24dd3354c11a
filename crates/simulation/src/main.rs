//! Runs seeds, and prints the time line of the first that fails.
#![allow(clippy::print_stdout, reason = "it is a command")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use simulation::{Options, Profile, Verdict, mutation, run};

/// Runs the simulation of every seed of a range, and shows the first that fails.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to run, such as `0..10000`, or one to replay, such as `17`.
    #[arg(long, default_value = "0..100", value_parser = seeds)]
    seeds: Range<u64>,
    /// What clients do: records, bus, or all.
    #[arg(long, default_value = "all", value_parser = profile)]
    profile: Profile,
    /// A fault of the past to put back, such as R1.
    #[arg(long)]
    mutation: Option<String>,
    /// Seeds that run at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Print the time line of the last seed, whether it fails or not.
    #[arg(long)]
    history: bool,
    /// Reads of the document store stand in the time line, too.
    #[arg(long)]
    reads: bool,
    /// Go on after a seed that fails; all that fail are named.
    #[arg(long)]
    all: bool,
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "all" => Ok(Profile::All),
        "records" => Ok(Profile::Records),
        "bus" => Ok(Profile::Bus),
        _ => Err("a profile is records, bus or all".to_owned()),
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (without, profile) = match &arguments.mutation {
        None => (&[][..], arguments.profile),
        Some(name) => match mutation::named(name) {
            Some(mutation) => (mutation.without, mutation.profile),
            None => {
                println!("there is no mutation {name}; there are {:?}", mutation::ALL);
                return ExitCode::from(2);
            }
        },
    };
    let options = Options { profile, without: without.to_vec(), shows_reads: arguments.reads };
    let began = Instant::now();
    let next = AtomicU64::new(arguments.seeds.start);
    let verdicts = std::sync::Mutex::new(Vec::<Verdict>::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let mut verdict = run(seed, &options);
                    if verdict.violations.is_empty() {
                        if !arguments.history {
                            verdict.history = String::new();
                        }
                    } else if arguments.all {
                        println!("seed {seed} fails: {}", verdict.violations[0]);
                    } else {
                        next.store(arguments.seeds.end, Ordering::Relaxed);
                    }
                    // Nobody panics while holding it.
                    verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(verdict);
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    verdicts.sort_by_key(|verdict| verdict.seed);
    report(&arguments, &verdicts, began.elapsed().as_secs_f64())
}

fn report(arguments: &Arguments, verdicts: &[Verdict], seconds: f64) -> ExitCode {
    let failing: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).collect();
    let shown = failing.first().copied().or_else(|| verdicts.last().filter(|_| arguments.history));
    if let Some(verdict) = shown {
        println!("{}", verdict.history);
    }
    let total = |count: fn(&Verdict) -> usize| verdicts.iter().map(count).sum::<usize>();
    println!(
        "{} seeds, {} operations, {} kills, {:.0} seeds per minute, {} failing",
        verdicts.len(),
        total(|verdict| verdict.operations),
        total(|verdict| verdict.kills),
        verdicts.len() as f64 * 60.0 / seconds,
        failing.len(),
    );
    if let Some(verdict) = failing.first() {
        let mutation =
            arguments.mutation.as_ref().map_or(String::new(), |name| format!(" --mutation {name}"));
        println!("seed {} fails: {}", verdict.seed, verdict.violations[0]);
        let profile = match arguments.profile {
            Profile::All => "",
            Profile::Records => " --profile records",
            Profile::Bus => " --profile bus",
        };
        println!(
            "replay: cargo run --release -p simulation -- --seeds {}{profile}{mutation} --history",
            verdict.seed
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
