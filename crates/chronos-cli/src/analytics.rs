//! `chronos analytics`.

use std::sync::Arc;

use chronos_db::Timestamp;
use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use parking_lot::Mutex;

use crate::failure::{Failure, Failures};
use crate::open::Globals;
use crate::output::Output;

/// Compute the analytics rules of the configuration, and print their results.
///
/// `chronos worker` runs time-based rules each hour, and those across tenants each day.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos analytics run
  chronos analytics results daily_revenue --limit 30")]
pub(crate) struct AnalyticsArgs {
    #[command(subcommand)]
    command: AnalyticsCommand,
}

#[derive(Debug, Subcommand)]
enum AnalyticsCommand {
    Run(RunArgs),
    Results(ResultsArgs),
}

/// Run rules now, whether they are due or not, and print each result on a line.
///
/// Rules run over every collection of their name that the configuration leads to. With `--tenant`, `--type` or
/// another option that says where the data is, time-based rules run there alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos analytics run
  chronos analytics run daily_revenue --now 2026-01-31T23:59:59Z
  chronos analytics run daily_revenue --tenant acme")]
struct RunArgs {
    /// Rules by their names; all without any.
    #[arg(value_name = "RULE")]
    rules: Vec<String>,
    /// Run them as of this time: it bounds `relativeTime`, and items that were created later do not count.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    now: Option<Timestamp>,
}

/// Print the results of a rule, one per line, the latest timeframe first.
///
/// A time-based rule has results of its own for each tenant; one across tenants has them where the configuration
/// says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos analytics results daily_revenue --limit 30
  chronos analytics results daily_revenue --tenant acme")]
struct ResultsArgs {
    /// The rule.
    #[arg(value_name = "RULE")]
    rule: String,
    /// At most this many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) async fn run(globals: &Globals, args: AnalyticsArgs) -> Result<(), Failure> {
    match args.command {
        AnalyticsCommand::Run(args) => run_rules(globals, args).await,
        AnalyticsCommand::Results(args) => results(globals, args).await,
    }
}

async fn run_rules(globals: &Globals, args: RunArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let out = Arc::new(Mutex::new((Output::new(), Ok(()))));
    let heard = Arc::clone(&out);
    let mut run = session.chronos.analytics().run().on_result(move |result| {
        let (out, printed) = &mut *heard.lock();
        if printed.is_ok() {
            *printed = out.line(&result.to_json());
        }
    });
    if !args.rules.is_empty() {
        run = run.rules(args.rules);
    }
    if let Some(now) = args.now {
        run = run.now(now);
    }
    if globals.says_where() {
        run = run.only(session.route());
    }
    let ran = run.await?;
    session.close().await?;
    let (out, printed) = &mut *out.lock();
    std::mem::replace(printed, Ok(()))?;
    out.finish()?;
    let failed = ran.rules.iter().filter_map(|run| Some((run, run.error.as_ref()?)));
    let mut failures = Failures::default();
    for (run, error) in failed {
        failures.say(&format!("rule `{}` over {}: {error}", run.rule, run.target));
    }
    failures.end()
}

async fn results(globals: &Globals, args: ResultsArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let mut found = session.chronos.analytics().results(args.rule, session.route()).stream().await?;
    let mut out = Output::new();
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(result) = found.try_next().await?
    {
        out.line(&result.to_json())?;
        left -= 1;
    }
    drop(found);
    session.close().await?;
    out.finish()
}
