//! `chronos import`.

use std::time::Instant;

use chronos_db::{Error, ErrorKind, ImportOp, ImportOutcome, Importer, Json, json};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::CollectionArg;
use crate::failure::{Failure, one_line};
use crate::lines::{Line, Lines};
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;
use crate::stop::Stop;

/// Apply a log of changes, one JSON operation per line, in which items are known by a property.
///
/// An operation is {"op": "create"|"replace"|"update"|"delete", "key": …, "data"?: {…}, "at"?: TIME,
/// "actor"?: …, "reason"?: …}. `at` is when it happened. Importing the same log again changes nothing, so an
/// import that was stopped is simply started again: a change is recognised by its key, time, kind and data.
/// Lines without `at` are recognised by their number if the log has a name (--log); without one they are
/// carried out again each time. Changes of a key at one time keep the order of the log, a millisecond apart;
/// a change older than its key's newest that was never imported is an error of its line. What became of it is
/// printed at the end: `written` counts versions, and `created` those of them that began an item.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos import -c companies --key-property Symbol history.ndjson
  # lines may have no `at`
  chronos import -c orders --key-property number \\
    --log orders-2026 orders.ndjson
  cat january.ndjson february.ndjson | chronos import -c companies \\
    --key-property Symbol --keep-going -")]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// The property by which `key` names an item.
    #[arg(long, value_name = "P")]
    key_property: String,
    /// The log; `-` is standard input.
    #[arg(value_name = "FILE|-")]
    log: String,
    /// The name of the log, kept with what was imported: its lines are recognised by their number. It may
    /// grow at its end; another log has another name.
    #[arg(long = "log", value_name = "NAME")]
    log_name: Option<String>,
    /// Continue after lines that cannot be applied. Without it nothing of such a line and of those behind it
    /// is written.
    #[arg(long)]
    keep_going: bool,
    /// Take at most this many lines together. A pause of the input is never waited for.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
}

/// What the import came to so far.
#[derive(Debug, Default)]
struct Counts {
    lines: u64,
    created: u64,
    written: u64,
    unchanged: u64,
    skipped: u64,
    failed: u64,
}

pub(crate) async fn run(globals: &Globals, args: ImportArgs) -> Result<(), Failure> {
    let began = Instant::now();
    let mut lines = Lines::open(&args.log, ImportOp::parse)?;
    let mut session = globals.open_for_writing()?;
    let collection = session.collection(&args.of.collection)?;
    let mut importer = collection.import(&args.key_property);
    if let Some(name) = &args.log_name {
        importer = importer.log(name);
    }
    let mut import = Import {
        importer: importer.await?,
        keep_going: args.keep_going,
        named: args.log_name.is_some(),
        counts: Counts::default(),
        bar: bar(lines.bytes()),
    };
    let imported = import.all(&mut lines, args.batch as usize).await;
    import.bar.finish_and_clear();
    // What was written before a failure gets its time, too.
    let settled = session.flush(&collection).await;
    let printed = settled.and_then(|unflushed| Output::new().value(&import.counts.to_json(began, unflushed)));
    let closed = session.close().await;
    imported.and(printed).and(closed)?;
    if import.counts.failed > 0 { Err(Failure::Reported) } else { Ok(()) }
}

struct Import {
    importer: Importer,
    keep_going: bool,
    /// Lines without a time are recognised when they come again, or it has been said that they are not.
    named: bool,
    counts: Counts,
    bar: ProgressBar,
}

impl Import {
    async fn all(&mut self, lines: &mut Lines<ImportOp>, batch: usize) -> Result<(), Failure> {
        let mut stop = Stop::listen();
        let mut taken = Vec::with_capacity(batch);
        loop {
            let count = tokio::select! {
                count = lines.take(&mut taken, batch) => count,
                () = stop.comes() => {
                    self.say("stopped; what was imported stays, and importing the log again continues");
                    return Err(Failure::Reported);
                }
            };
            if count == 0 {
                return lines.end();
            }
            let (bytes, end) =
                (taken.iter().map(|line| line.bytes).sum(), taken.last().map_or(0, |line| line.end));
            let done = self.carry_out(taken.drain(..)).await;
            lines.release(bytes);
            self.bar.set_position(end);
            self.bar.set_message(format!("{} versions", self.counts.written));
            done?;
        }
    }

    /// Carries out some lines. An error ends the import; it has been counted and reported.
    async fn carry_out(&mut self, lines: impl Iterator<Item = Line<ImportOp>>) -> Result<(), Failure> {
        let (mut numbers, mut operations, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            match line.read {
                Ok(operation) => {
                    if operation.at().is_none() && !std::mem::replace(&mut self.named, true) {
                        let number = line.number;
                        self.say(&format!("line {number} has no `at`: such lines are carried out again when the log is; --log NAME lets them be recognised"));
                    }
                    numbers.push(line.number);
                    operations.push(operation.on_line(line.number));
                }
                Err(error) => {
                    wrong.push((line.number, error));
                    if !self.keep_going {
                        break;
                    }
                }
            }
        }
        let results = if operations.is_empty() {
            Vec::new()
        } else {
            self.importer.apply(operations, !self.keep_going).await?
        };
        let mut ends = false;
        for (number, result) in numbers.iter().zip(results) {
            match result {
                Ok(outcome) => self.counts.add(&outcome),
                Err(error) => {
                    ends |= !self.keep_going || !is_about_its_line(&error);
                    wrong.push((*number, error));
                }
            }
        }
        wrong.sort_by_key(|(number, _)| *number);
        if !self.keep_going {
            // The first one ended it; a line behind it was not looked at.
            wrong.truncate(1);
            ends = !wrong.is_empty();
        }
        for (number, error) in wrong {
            self.counts.lines += 1;
            self.counts.failed += 1;
            self.say(&format!("error: line {number}: {}", one_line(&error.to_string())));
        }
        if ends { Err(Failure::Reported) } else { Ok(()) }
    }

    /// A line on stderr that does not run into the progress bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| note(line));
    }
}

/// Whether the next line may fare better. When a store fails, going on would leave holes in the log.
fn is_about_its_line(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Validation | ErrorKind::NotFound | ErrorKind::Externalization | ErrorKind::Locked
    )
}

impl Counts {
    fn add(&mut self, outcome: &ImportOutcome) {
        self.lines += 1;
        match outcome {
            ImportOutcome::Written(written) if written.changed => {
                self.written += 1;
                self.created += u64::from(written.created);
            }
            ImportOutcome::Written(_) => self.unchanged += 1,
            _ => self.skipped += 1,
        }
    }

    fn to_json(&self, began: Instant, unflushed: u64) -> Json {
        let Self { lines, created, written, unchanged, skipped, failed } = self;
        let seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        json!({
            "lines": lines, "created": created, "written": written, "unchanged": unchanged, "skipped": skipped, "failed": failed,
            "seconds": seconds, "unflushed": unflushed,
        })
    }
}

/// Drawn on a terminal only.
fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {msg} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
