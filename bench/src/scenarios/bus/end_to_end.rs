//! From publish over the handler to acknowledged, at a steady rate.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronos_db::Chronos;
use chronos_db::config::Database;
use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{HotTier, Settle, Settled};
use chronow::testing::{Point, hooked};
use chronow::{Chronow, Message, PublishMessage};
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{ROOM, config, on, payload};
use crate::baseline::redis::Stream;
use crate::disk::device_of;
use crate::measure::{Comparison, percentile};
use crate::report::Line;
use crate::server::{Aof, RedisServer};
use crate::{Context, Failure, Result, targets};

const NAME: &str = "end_to_end";
const SUBSCRIPTION: &str = "s";
/// Messages per second: the first that the baseline can hold here.
const RATES: [u64; 4] = [10_000, 5_000, 2_000, 1_000];
/// How often some are sent.
const TICK: Duration = Duration::from_millis(1);
/// The baseline does not hold a rate if it has not caught up so long after the last message.
const CAUGHT_UP: Duration = Duration::from_millis(500);
/// How long the rest may take at all.
const REST: Duration = Duration::from_secs(120);
/// The share of a round that warms up and does not count.
const WARM_UP: f64 = 0.25;

/// Microseconds from sending to acknowledged, of what was sent after the warm-up.
#[derive(Debug)]
struct Latencies {
    begun: Instant,
    warm: Duration,
    seen: Mutex<(u64, Vec<u64>)>,
}

impl Latencies {
    fn new(context: &Context) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), warm: context.round.mul_f64(WARM_UP), seen: Mutex::default() })
    }

    /// What a message says of when it was sent.
    fn stamp(&self) -> String {
        payload(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When a message was sent, by what it says.
    fn sent(payload: &[u8]) -> Option<Duration> {
        let digits = payload.get(1..)?.split(|byte| !byte.is_ascii_digit()).next()?;
        std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_micros)
    }

    fn acknowledged(&self, sent: impl IntoIterator<Item = Duration>) {
        let now = self.begun.elapsed();
        let mut seen = self.seen.lock();
        for sent in sent {
            seen.0 += 1;
            if sent >= self.warm {
                seen.1.push(u64::try_from(now.saturating_sub(sent).as_micros()).unwrap_or(u64::MAX));
            }
        }
    }

    fn count(&self) -> u64 {
        self.seen.lock().0
    }

    fn sorted(&self) -> Vec<u64> {
        let mut seen = self.seen.lock().1.clone();
        seen.sort_unstable();
        seen
    }
}

/// Notes when messages of the subscription that is measured are acknowledged.
fn watched(hot: Arc<dyn HotTier>, latencies: Arc<Latencies>) -> Arc<dyn HotTier> {
    // When the messages that were handed out had been sent, by their ids.
    let handed_out = Mutex::new(HashMap::new());
    hooked(hot, move |point| {
        let handed_out = || handed_out.lock();
        match point {
            Point::AfterPull(subscription, deliveries) if subscription.name() == SUBSCRIPTION => {
                let sent = deliveries.iter().filter_map(|delivery| {
                    Some((delivery.lock.id.clone(), Latencies::sent(&delivery.message.payload)?))
                });
                handed_out().extend(sent);
            }
            Point::AfterSettleAndStart(subscription, settle, settled)
                if subscription.name() == SUBSCRIPTION =>
            {
                let acked = settle
                    .iter()
                    .zip(settled)
                    .filter(|((_, how), done)| *how == Settle::Ack && **done == Settled::Done);
                let mut handed_out = handed_out();
                latencies.acknowledged(
                    acked.filter_map(|((lock, _), _)| handed_out.remove(&lock.id)).collect::<Vec<_>>(),
                );
            }
            _ => {}
        }
        Ok(())
    })
}

/// Sends one message after the other, each by a call of its own, however long they take. Answers how many.
async fn steadily<F>(
    latencies: &Latencies,
    rate: u64,
    time: Duration,
    send: impl Fn(String) -> F,
) -> Result<u64>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut sent, mut sending) = (0, JoinSet::new());
    while latencies.begun.elapsed() < time {
        ticks.tick().await;
        let due = u64::try_from(latencies.begun.elapsed().as_micros())? * rate / 1_000_000;
        let burst: Vec<_> = (sent..due.max(sent)).map(|_| send(latencies.stamp())).collect();
        sent = due.max(sent);
        sending.spawn(try_join_all(burst));
        while let Some(done) = sending.try_join_next() {
            done??;
        }
    }
    while let Some(done) = sending.join_next().await {
        done??;
    }
    Ok(sent)
}

/// Until all are acknowledged. False if that takes longer.
async fn all(latencies: &Latencies, sent: u64, timeout: Duration) -> bool {
    let begun = Instant::now();
    while latencies.count() < sent {
        if begun.elapsed() > timeout {
            return false;
        }
        // What is measured is over; this only looks now and then.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

fn time(context: &Context) -> Duration {
    context.round.mul_f64(1.0 + WARM_UP)
}

pub(crate) async fn latency(context: &Context) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for aof in [Aof::Everysec, Aof::Off] {
        let server = RedisServer::start(&context.dir, aof).await?;
        let rate = held(context, &server).await?;
        let (mut p99, mut p50, mut behind) = (Comparison::default(), Comparison::default(), Vec::new());
        for round in 0..=context.rounds {
            let Ours { latencies: seen, behind: late } = ours(context, &server, rate).await?;
            let ceiling =
                ceiling(context, &server, rate, REST).await?.ok_or("the ceiling did not catch up")?;
            if round > 0 {
                for (comparison, share) in [(&mut p99, 0.99), (&mut p50, 0.5)] {
                    comparison.ours.push(percentile(&seen, share) / 1000.0);
                    comparison.ceiling.push(percentile(&ceiling, share) / 1000.0);
                }
                behind.push(late);
            }
        }
        let (medians, halves) = (p99.medians(), p50.medians());
        let line = Line::against(
            format!("{NAME}{}", aof.suffix()),
            "ms (p99)",
            medians.0,
            medians.1,
            Some(targets::END_TO_END),
        )
        .note("per_second", rate)
        .note("p50_ms", (halves.0 * 1000.0).round() / 1000.0)
        .note("ceiling_p50_ms", (halves.1 * 1000.0).round() / 1000.0)
        .note("with", "retry, dead letters, warm copies (embedded)")
        .note("warm_on", device_of(warm_place(context)))
        .note("copies_behind_s", (crate::measure::median(&behind) * 100.0).round() / 100.0)
        .note("bytes", 100)
        .note("ratios", p99.spread());
        lines.push(on(line, &server));
    }
    Ok(lines)
}

/// The first rate that the ceiling can hold.
async fn held(context: &Context, server: &RedisServer) -> Result<u64> {
    for rate in RATES {
        if ceiling(context, server, rate, CAUGHT_UP).await?.is_some() {
            return Ok(rate);
        }
    }
    Err("not even the ceiling holds the lowest rate here".into())
}

/// What was seen of ours.
struct Ours {
    /// Sorted, in microseconds.
    latencies: Vec<u64>,
    /// How many seconds after the last acknowledgement the last warm copy was made.
    behind: f64,
}

async fn ours(context: &Context, server: &RedisServer, rate: u64) -> Result<Ours> {
    let folder = tempfile::tempdir_in(warm_place(context))?;
    let chronos = warm(folder.path())?;
    let latencies = Latencies::new(context);
    let redis = Arc::new(RedisHot::connect(RedisConfig::single(server.url())).await?);
    let chronow =
        Chronow::with_hot(watched(redis, Arc::clone(&latencies)), &config(server)?, Some(&chronos))?;
    let topic = chronow.bus().topic(NAME)?;
    topic.delete().await?;
    topic.ensure().max_len(ROOM).warm(true).await?;
    let subscription = topic.subscription(SUBSCRIPTION)?;
    subscription.ensure().await?;
    let runner = subscription.run_bytes(|_: Message<Bytes>| async {}).concurrency(200).start().await?;
    let publisher = topic.clone();
    let sent = steadily(&latencies, rate, time(context), move |payload| {
        let topic = publisher.clone();
        async move {
            topic.publish_batch([PublishMessage::bytes(Bytes::from(payload), "")]).await?;
            Ok(())
        }
    })
    .await?;
    if !all(&latencies, sent, REST).await {
        return Err(format!("{} of {sent} messages were acknowledged", latencies.count()).into());
    }
    let acknowledged = Instant::now();
    while chronow.metrics().warm_copies < sent {
        if acknowledged.elapsed() > REST {
            return Err(format!("{} of {sent} messages were copied", chronow.metrics().warm_copies).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let behind = acknowledged.elapsed().as_secs_f64();
    runner.stop().await?;
    topic.delete().await?;
    chronow.close().await?;
    chronos.shutdown().await?;
    Ok(Ours { latencies: latencies.sorted(), behind })
}

/// Where the warm tier lies. Its commits must not wait for the disk of Redis' file and make that wait:
/// elsewhere these are two machines.
fn warm_place(context: &Context) -> &Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { &context.dir }
}

/// The warm tier: an embedded messaging database.
fn warm(folder: &Path) -> Result<Chronos> {
    let config = chronos_db::config::Config::builder()
        .embedded("warm", folder)
        .database(Database::messaging("warm", "messaging"));
    Ok(Chronos::open(config.build()?)?)
}

/// The driver alone. Nothing if it did not catch up in time.
async fn ceiling(
    context: &Context,
    server: &RedisServer,
    rate: u64,
    timeout: Duration,
) -> Result<Option<Vec<u64>>> {
    let stream = Stream::create(server, NAME).await?;
    let (reader, acker) = (stream.another().await?, stream.another().await?);
    let latencies = Latencies::new(context);
    let seen = Arc::clone(&latencies);
    let mut acks = JoinSet::new();
    let reading = tokio::spawn(async move {
        loop {
            let entries = reader.read(1_000, Some(Duration::from_secs(1))).await?;
            if entries.is_empty() {
                return Ok::<_, Failure>(());
            }
            let (seen, acker) = (Arc::clone(&seen), acker.clone());
            acks.spawn(async move {
                acker.ack_all(&entries).await?;
                seen.acknowledged(entries.iter().filter_map(|entry| Latencies::sent(&entry.payload)));
                Ok::<_, Failure>(())
            });
            while let Some(done) = acks.try_join_next() {
                done??;
            }
        }
    });
    let adder = stream.clone();
    let sent = steadily(&latencies, rate, time(context), move |payload| {
        let stream = adder.clone();
        async move { stream.add(&payload).await }
    })
    .await?;
    let caught_up = all(&latencies, sent, timeout).await;
    // It ends when nothing has come for a second.
    reading.await??;
    stream.drop().await?;
    Ok(caught_up.then(|| latencies.sorted()))
}
