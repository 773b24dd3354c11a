//! `chronos bus consume`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chronos_db::Json;
use chronos_db::documents::filter::{Filter, parse};
use chronow::{Message, Outcome, Runner, Subscription};
use clap::{Args, ValueEnum};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::exec::exec;
use super::{SubscriptionArg, parse_filter, payload_json, shown};
use crate::connect::Connected;
use crate::failure::Failure;
use crate::metrics::MetricsArg;
use crate::output::Output;
use crate::stop::Stop;

/// Before it ends, an idle consumer looks again so often whether what is due can be had.
const AGAIN: Duration = Duration::from_secs(1);

/// Messages in hand at once, by default: commands take their time, lines don't, and then more at once are
/// fewer round trips.
const COMMANDS: usize = 8;
const LINES: usize = 32;
/// Without a command, messages held in advance.
const PREFETCH: usize = 128;

/// Receive messages and print a line for each, until it is stopped. Any number of consumers may share a
/// subscription.
///
/// Stopped by Ctrl-C or SIGTERM, it gives back what it has not begun, waits for what it has (30 s at most, then
/// it comes again), and ends with exit code 0. If the store does not answer for 10 s meanwhile, it says that
/// something may come again, and ends with 1.
///
/// A line shows `id`, `payload`, `headers` and `deliveries`, which counts this one, and is out before the
/// message is settled: what was killed in between comes again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos bus consume payments fraud  # until Ctrl-C
  chronos bus consume payments fraud --exit-when-idle-ms 2000
  chronos bus consume payments fraud --exec ./check-payment --concurrency 4
  chronos bus consume payments fraud --metrics 127.0.0.1:9464
  chronos bus consume payments fraud \\
    --fail-when '{\"amount\": {\"$gte\": 1000}}' --max 1")]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    subscription: SubscriptionArg,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// What happens to a message: it is acknowledged, fails, or comes again when its lock ends.
    #[arg(long, value_name = "HOW", default_value = "ack")]
    settle: Settling,
    /// Let messages fail whose payload matches, in MongoDB's syntax.
    #[arg(long, value_name = "FILTER")]
    fail_when: Option<String>,
    /// A shell command that gets every payload as its input; if it fails, the message does. CHRONOS_ID,
    /// CHRONOS_DELIVERIES, CHRONOS_HEADERS and CHRONOS_KEY are in its environment.
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// End when nothing was received and nothing in hand for this long, and nothing is due.
    #[arg(long, value_name = "N")]
    exit_when_idle_ms: Option<u64>,
    /// Messages in hand at once (default: 8 with --exec, else 32).
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    #[command(flatten)]
    metrics: MetricsArg,
}

impl ConsumeArgs {
    pub(super) fn serve_metrics(&self) -> Result<(), Failure> {
        self.metrics.serve()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Settling {
    Ack,
    Nack,
    None,
}

/// What the handlers share.
struct Work {
    settle: Settling,
    fail_when: Option<Filter>,
    exec: Option<String>,
    out: Mutex<Output>,
    /// Why there is no use in going on.
    broken: Mutex<Option<Failure>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    in_hand: usize,
    since: Instant,
    broken: bool,
}

/// A message in hand.
struct InHand<'w>(&'w Work);

impl<'w> InHand<'w> {
    fn take(work: &'w Work) -> Self {
        work.state.send_modify(|state| state.in_hand += 1);
        Self(work)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.in_hand -= 1;
            state.since = Instant::now();
        });
    }
}

impl Work {
    fn new(args: &ConsumeArgs) -> Result<Self, Failure> {
        let fail_when = match &args.fail_when {
            Some(text) => Some(parse(&parse_filter(text)?, &mut |path| Ok(path.to_owned()))?),
            None => None,
        };
        let state = State { in_hand: 0, since: Instant::now(), broken: false };
        Ok(Self {
            settle: args.settle,
            fail_when,
            exec: args.exec.clone(),
            out: Mutex::new(Output::new()),
            broken: Mutex::new(None),
            state: watch::Sender::new(state),
        })
    }

    async fn handle(&self, message: Message<Bytes>) -> Outcome {
        let _in_hand = InHand::take(self);
        let payload = payload_json(&message.payload, message.content_type());
        if let Err(failure) = self.print(&message) {
            *self.broken.lock() = Some(failure);
            self.state.send_modify(|state| state.broken = true);
            return failed("the consumer could not write its output");
        }
        if self.fail_when.as_ref().is_some_and(|filter| matches(filter, &payload)) {
            return failed("it matches --fail-when");
        }
        if let Some(command) = &self.exec
            && let Err(outcome) = exec(command, &message).await
        {
            return outcome;
        }
        match self.settle {
            Settling::Ack => Outcome::Ack,
            Settling::Nack => failed("--settle nack"),
            Settling::None => Outcome::Leave,
        }
    }

    fn print(&self, message: &Message<Bytes>) -> Result<(), Failure> {
        let mut line =
            shown(message.id(), &message.payload, message.content_type(), message.headers(), message.key());
        line.insert("deliveries".to_owned(), message.deliveries().into());
        line.insert("publishedAt".to_owned(), message.published_at().to_string().into());
        self.out.lock().now(&line.into())
    }

    /// Returns when nothing was in hand for this long, and says since when.
    async fn idle(&self, limit: Duration) -> Instant {
        let mut states = self.state.subscribe();
        loop {
            let state = *states.borrow_and_update();
            // The sender is in `self`: waiting for a change never fails.
            if state.in_hand > 0 {
                let _ = states.changed().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(state.since + limit) => return state.since,
                _ = states.changed() => {}
            }
        }
    }

    fn is_idle_since(&self, since: Instant) -> bool {
        let state = *self.state.borrow();
        state.in_hand == 0 && state.since == since
    }

    async fn broken(&self) {
        // The sender is in `self`: waiting never fails.
        let _ = self.state.subscribe().wait_for(|state| state.broken).await;
    }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), delay: None }
}

fn matches(filter: &Filter, payload: &Json) -> bool {
    // A payload that is not an object has no properties to match.
    matches!(chronos_db::json_to_nearest_bson(payload), bson::Bson::Document(payload) if filter.matches(&payload))
}

pub(super) async fn run(connected: &Connected, args: ConsumeArgs) -> Result<(), Failure> {
    // Before anything is taken that has to be given back.
    let stop = Stop::listen();
    let work = Arc::new(Work::new(&args)?);
    let handler = Arc::clone(&work);
    let mut run = args.subscription.of(connected)?.run_bytes(move |message| {
        let work = Arc::clone(&handler);
        async move { work.handle(message).await }
    });
    run = match args.exec {
        Some(_) => run.concurrency(args.concurrency.unwrap_or(COMMANDS)),
        None => run.concurrency(args.concurrency.unwrap_or(LINES)).prefetch(PREFETCH),
    };
    if let Some(messages) = args.max {
        run = run.limit(messages);
    }
    let runner = run.start().await?;
    let subscription = args.subscription.of(connected)?;
    let idle = args.exit_when_idle_ms.map(Duration::from_millis);
    let ended = tokio::select! {
        ended = until_over(&subscription, &work, runner, stop, idle) => ended,
        () = args.metrics.measure(&connected.chronow) => Ok(()),
    };
    match work.broken.lock().take() {
        Some(failure) => Err(failure),
        None => ended,
    }
}

async fn until_over(
    subscription: &Subscription,
    work: &Work,
    runner: Runner,
    mut stop: Stop,
    idle: Option<Duration>,
) -> Result<(), Failure> {
    let idle = async {
        match idle {
            Some(limit) => until_idle(subscription, work, &runner, limit).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        () = runner.finished() => return Ok(runner.join().await?),
        () = stop.comes() => Ok(()),
        () = work.broken() => Ok(()),
        ended = idle => ended,
    };
    runner.stop().await?;
    ended
}

/// Returns when nothing was in hand for this long and nothing is due. That nothing came may also mean that the
/// hot tier was slow, or that this process, or its whole machine, stood still meanwhile.
///
/// # Errors
/// One that is away brings nothing, too, and that is not a success.
async fn until_idle(
    subscription: &Subscription,
    work: &Work,
    runner: &Runner,
    limit: Duration,
) -> Result<(), Failure> {
    loop {
        let since = work.idle(limit).await;
        let stats = subscription.stats().await?;
        if stats.backlog > 0 && !stats.paused {
            tokio::time::sleep(AGAIN.min(limit)).await;
            continue;
        }
        // Locks of a consumer that died may have ended, too.
        runner.found_nothing().await;
        if work.is_idle_since(since) {
            return Ok(());
        }
    }
}
