//! `chronos bus top`.

use std::time::{Duration, Instant};

use chronos_db::{Clock as _, Json, SystemClock, Timestamp, json};
use chronow::ErrorKind;
use chronow::hot::{SubscriptionStats, TopicStats};
use clap::Args;
use console::{Term, style};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use super::look::counted;
use crate::connect::Connected;
use crate::failure::Failure;
use crate::output::{Output, failed};
use crate::stop::Stop;

/// Topics that are asked for their counts at once.
const AT_ONCE: usize = 8;

/// Watch topics and their subscriptions: what waits, what comes and goes in a second, and the age of the
/// oldest message that is not settled.
///
/// A table that is drawn anew every --interval-ms on a terminal, else one JSON line each time. Rates are
/// those since the line before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus top                                  # until Ctrl-C
  chronos bus top payments --interval-ms 5000
  chronos bus top --frames 2 | tail -1             # one line with rates")]
pub(crate) struct TopArgs {
    /// Only these topics.
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// The time between two looks.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..))]
    interval_ms: u64,
    /// End after this many looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
}

impl TopArgs {
    /// One that stays waits for the store to come into being.
    pub(super) fn looks(&self) -> bool {
        self.frames.is_some()
    }
}

/// What was seen of a topic, and when.
#[derive(Debug)]
struct Seen {
    name: String,
    at: Instant,
    stats: TopicStats,
}

/// What came and went in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    arrived: f64,
    acked: f64,
}

#[derive(Debug)]
struct Frame {
    at: Timestamp,
    topics: Vec<Seen>,
}

pub(super) async fn run(connected: &Connected, args: TopArgs) -> Result<(), Failure> {
    let mut stop = Stop::listen();
    let mut ticks = tokio::time::interval(Duration::from_millis(args.interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = Screen::open()?;
    let (mut before, mut shown) = (None, 0);
    while args.frames.is_none_or(|most| shown < most) {
        let look = async {
            ticks.tick().await;
            look(connected, &args.topics).await
        };
        let frame = tokio::select! {
            frame = look => frame,
            () = stop.comes() => break,
        };
        let frame = match frame {
            Ok(frame) => frame,
            // Such as a server that starts anew.
            Err(failure) if failure.is_retryable() && before.is_some() => {
                failure.tell_interruption();
                continue;
            }
            Err(failure) => return Err(failure),
        };
        screen.show(&frame, before.as_ref())?;
        before = Some(frame);
        shown += 1;
    }
    Ok(())
}

async fn look(connected: &Connected, wanted: &[String]) -> Result<Frame, Failure> {
    let bus = connected.chronow.bus();
    let names = if wanted.is_empty() { bus.topics().await? } else { wanted.to_vec() };
    let seen = stream::iter(names).map(|name| async {
        match bus.topic(&name)?.stats().await {
            Ok(stats) => Ok(Some(Seen { name, at: Instant::now(), stats })),
            // One that was removed meanwhile is none any more.
            Err(error) if error.kind() == ErrorKind::NotFound && wanted.is_empty() => Ok(None),
            Err(error) => Err(Failure::from(error)),
        }
    });
    let seen: Vec<Option<Seen>> = seen.buffered(AT_ONCE).try_collect().await?;
    Ok(Frame { at: SystemClock.now(), topics: seen.into_iter().flatten().collect() })
}

impl Frame {
    fn seen(&self, topic: &str) -> Option<&Seen> {
        self.topics.iter().find(|seen| seen.name == topic)
    }
}

impl Seen {
    /// The rates of a subscription since the topic was seen before.
    fn rates(&self, before: Option<&Self>, now: &SubscriptionStats) -> Option<Rates> {
        let before = before?;
        let then = before.stats.subscriptions.iter().find(|stats| stats.subscription == now.subscription)?;
        Some(rates(then, now, self.at.saturating_duration_since(before.at)))
    }
}

/// What arrived is what there is more of, held or done.
fn rates(then: &SubscriptionStats, now: &SubscriptionStats, passed: Duration) -> Rates {
    let all = |stats: &SubscriptionStats| {
        stats.backlog + stats.pending + stats.scheduled + stats.deferred + stats.dead_letters + stats.acked
    };
    // Less than before was removed, or is of another subscription of that name.
    let a_second = |then: u64, now: u64| now.saturating_sub(then) as f64 / passed.as_secs_f64().max(0.001);
    Rates { arrived: a_second(all(then), all(now)), acked: a_second(then.acked, now.acked) }
}

/// Where frames go.
enum Screen {
    Terminal(Cursor),
    Lines(Output),
}

/// A terminal whose cursor is away.
struct Cursor(Term);

impl Drop for Cursor {
    fn drop(&mut self) {
        // Without a terminal there is no cursor to bring back.
        let _ = self.0.show_cursor().and_then(|()| self.0.flush());
    }
}

impl Screen {
    fn open() -> Result<Self, Failure> {
        let term = Term::buffered_stdout();
        if !term.is_term() {
            return Ok(Self::Lines(Output::new()));
        }
        let cursor = Cursor(term);
        cursor.0.hide_cursor().and_then(|()| cursor.0.clear_screen()).map_err(failed)?;
        Ok(Self::Terminal(cursor))
    }

    fn show(&mut self, frame: &Frame, before: Option<&Frame>) -> Result<(), Failure> {
        match self {
            Self::Lines(out) => out.now(&line(frame, before)),
            Self::Terminal(Cursor(term)) => {
                let (rows, columns) = term.size();
                draw(term, &table(frame, before), usize::from(rows), usize::from(columns)).map_err(failed)
            }
        }
    }
}

/// Over what was there, so that nothing flickers.
fn draw(term: &Term, lines: &[String], rows: usize, columns: usize) -> std::io::Result<()> {
    term.move_cursor_to(0, 0)?;
    for (number, line) in lines.iter().take(rows.saturating_sub(1)).enumerate() {
        let line: String = line.chars().take(columns).collect();
        term.clear_line()?;
        term.write_line(&if number == 1 { style(line).bold().to_string() } else { line })?;
    }
    term.clear_to_end_of_screen()?;
    term.flush()
}

fn line(frame: &Frame, before: Option<&Frame>) -> Json {
    let topics = frame.topics.iter().map(|seen| {
        let mut topic = counted(&seen.name, &seen.stats);
        let before = before.and_then(|before| before.seen(&seen.name));
        for (shown, stats) in
            topic["subscriptions"].as_array_mut().into_iter().flatten().zip(&seen.stats.subscriptions)
        {
            let rates = seen.rates(before, stats);
            shown["inPerSecond"] = json!(rates.map(|rates| tenths(rates.arrived)));
            shown["outPerSecond"] = json!(rates.map(|rates| tenths(rates.acked)));
        }
        topic
    });
    json!({ "at": frame.at.to_string(), "topics": topics.collect::<Vec<_>>() })
}

fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

/// The table: a line about it, its head, and a row a subscription.
fn table(frame: &Frame, before: Option<&Frame>) -> Vec<String> {
    let mut rows = vec![
        ["TOPIC", "SUBSCRIPTION", "BACKLOG", "PENDING", "SCHEDULED", "DEAD", "IN/S", "OUT/S", "LAG"]
            .map(str::to_owned),
    ];
    for seen in &frame.topics {
        let before = before.and_then(|before| before.seen(&seen.name));
        if seen.stats.subscriptions.is_empty() {
            let nothing = || "-".to_owned();
            let held = seen.stats.length.to_string();
            rows.push([
                seen.name.clone(),
                nothing(),
                held,
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                nothing(),
            ]);
        }
        for stats in &seen.stats.subscriptions {
            let rates = seen.rates(before, stats);
            let rate = |of: fn(Rates) -> f64| {
                rates.map_or_else(|| "-".to_owned(), |rates| format!("{:.1}", of(rates)))
            };
            rows.push([
                seen.name.clone(),
                format!("{}{}", stats.subscription, if stats.paused { " (paused)" } else { "" }),
                stats.backlog.to_string(),
                stats.pending.to_string(),
                stats.scheduled.to_string(),
                stats.dead_letters.to_string(),
                rate(|rates| rates.arrived),
                rate(|rates| rates.acked),
                stats.oldest_age.map_or_else(|| "-".to_owned(), age),
            ]);
        }
    }
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let title = format!("{}: {} topics; Ctrl-C ends this", frame.at, frame.topics.len());
    std::iter::once(title).chain(rows.iter().map(|row| lay_out(row, widths))).collect()
}

/// Names to the left, numbers to the right.
fn lay_out(row: &[String; 9], widths: [usize; 9]) -> String {
    let cells = row.iter().zip(widths).enumerate();
    let cells = cells.map(
        |(column, (cell, width))| {
            if column < 2 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        },
    );
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// An age in the unit people would use.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(backlog: u64, pending: u64, acked: u64) -> SubscriptionStats {
        SubscriptionStats {
            subscription: "fraud".to_owned(),
            backlog,
            pending,
            acked,
            ..SubscriptionStats::default()
        }
    }

    fn frame(at: Instant, subscriptions: Vec<SubscriptionStats>) -> Frame {
        let stats = TopicStats { length: 7, subscriptions, ..TopicStats::default() };
        Frame { at: Timestamp::from_millis(0), topics: vec![Seen { name: "payments".to_owned(), at, stats }] }
    }

    #[test]
    fn rates_tell_what_arrived_and_what_was_acknowledged_in_a_second() {
        let passed = Duration::from_secs(2);
        assert_eq!(rates(&stats(10, 2, 100), &stats(4, 0, 120), passed), Rates { arrived: 6.0, acked: 10.0 });
        assert_eq!(rates(&stats(10, 0, 100), &stats(0, 0, 0), passed), Rates { arrived: 0.0, acked: 0.0 });
    }

    #[test]
    fn a_table_has_a_row_for_every_subscription_and_for_a_topic_without_one() {
        let begun = Instant::now();
        let late = SubscriptionStats {
            oldest_age: Some(Duration::from_secs(125)),
            paused: true,
            ..stats(4, 0, 120)
        };
        let then = frame(begun, vec![stats(10, 2, 100)]);
        let now = frame(begun + Duration::from_secs(2), vec![late]);
        let drawn = table(&now, Some(&then));
        assert_eq!(drawn.len(), 3);
        assert_eq!(
            drawn[1],
            "TOPIC     SUBSCRIPTION    BACKLOG  PENDING  SCHEDULED  DEAD  IN/S  OUT/S    LAG"
        );
        assert_eq!(
            drawn[2],
            "payments  fraud (paused)        4        0          0     0   6.0   10.0  2m05s"
        );
        assert!(table(&frame(begun, Vec::new()), None)[2].starts_with("payments  -                   7"));
    }

    #[test]
    fn ages_are_printed_in_units_that_people_would_use() {
        let printed =
            [5, 12_000, 61_000, 7_260_000, 90_000_000].map(|millis| age(Duration::from_millis(millis)));
        assert_eq!(printed, ["5ms", "12s", "1m01s", "2h01m", "1d01h"]);
    }
}
