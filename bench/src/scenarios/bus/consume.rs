//! Consuming and acknowledging what lies there, in one process.

use std::time::Instant;

use bytes::Bytes;
use chronow::{Message, Subscription};
use futures::future::try_join_all;

use super::{BATCH, TASKS, connect, count, fill, on, subscribed, texts};
use crate::baseline::redis::Stream;
use crate::measure::{Comparison, median};
use crate::report::Line;
use crate::server::{Aof, RedisServer};
use crate::{Context, Failure, Result, targets};

const NAME: &str = "consume_ack";
/// What lies there per second of a round.
const PER_SECOND: f64 = 100_000.0;

/// Figures of one server.
#[derive(Debug, Default)]
struct Figures {
    /// Ours in batches, against an XACK per message.
    batches: Comparison,
    handled: Vec<f64>,
    one_ack: Vec<f64>,
}

pub(crate) async fn and_ack(context: &Context) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for aof in [Aof::Everysec, Aof::Off] {
        let server = RedisServer::start(&context.dir, aof).await?;
        let figures = measure(context, &server).await?;
        let (ours, ceiling) = figures.batches.medians();
        let of_one_ack = median(&figures.one_ack);
        let line = Line::against(
            format!("{NAME}{}", aof.suffix()),
            "messages/s",
            ours,
            ceiling,
            Some(targets::CONSUME),
        )
        .note("by", "receive and ack_all")
        .note("batch", BATCH)
        .note("tasks", TASKS)
        .note("bytes", 100)
        .note("ratios", figures.batches.spread())
        .note("one_xack_a_batch", of_one_ack.round())
        .note("ratio_to_that", (ours / of_one_ack * 100.0).round() / 100.0);
        lines.push(on(line, &server));
        let handled = median(&figures.handled);
        let line = Line::against(
            format!("{NAME}_handler{}", aof.suffix()),
            "messages/s",
            handled,
            ceiling,
            Some(targets::CONSUME),
        )
        .note("by", "a task of its own for each message")
        .note("concurrency", BATCH)
        .note("ratio_to_one_xack_a_batch", (handled / of_one_ack * 100.0).round() / 100.0);
        lines.push(on(line, &server));
    }
    Ok(lines)
}

async fn measure(context: &Context, server: &RedisServer) -> Result<Figures> {
    let (mut figures, messages) = (Figures::default(), count(context, PER_SECOND));
    for round in 0..=context.rounds {
        let in_batches = ours(server, messages, received).await?;
        let each = ceiling(server, messages, true).await?;
        let handled = ours(server, messages, handled).await?;
        let at_once = ceiling(server, messages, false).await?;
        // The first round warms up.
        if round > 0 {
            figures.batches.ours.push(in_batches);
            figures.batches.ceiling.push(each);
            figures.handled.push(handled);
            figures.one_ack.push(at_once);
        }
    }
    Ok(figures)
}

async fn ours(
    server: &RedisServer,
    messages: usize,
    consume: impl AsyncFn(&Subscription, usize) -> Result<()>,
) -> Result<f64> {
    let chronow = connect(server).await?;
    let (topic, subscription) = subscribed(&chronow, NAME).await?;
    fill(&topic, messages).await?;
    let begun = Instant::now();
    consume(&subscription, messages).await?;
    let took = begun.elapsed();
    let stats = subscription.stats().await?;
    if (stats.acked, stats.deliveries, stats.backlog, stats.pending)
        != (messages as u64, messages as u64, 0, 0)
    {
        return Err(
            format!("of {messages} messages, not all were handled once and acknowledged: {stats:?}").into()
        );
    }
    topic.delete().await?;
    chronow.close().await?;
    Ok(messages as f64 / took.as_secs_f64())
}

/// In batches, several at once.
async fn received(subscription: &Subscription, _: usize) -> Result<()> {
    let tasks = (0..TASKS).map(|_| {
        let subscription = subscription.clone();
        tokio::spawn(async move {
            loop {
                let messages = subscription.receive::<String>(u32::try_from(BATCH)?).await?;
                if messages.is_empty() {
                    return Ok::<_, Failure>(());
                }
                subscription.ack_all(messages).await?;
            }
        })
    });
    for done in try_join_all(tasks.collect::<Vec<_>>()).await? {
        done?;
    }
    Ok(())
}

/// By a handler that does nothing.
async fn handled(subscription: &Subscription, messages: usize) -> Result<()> {
    let runner = subscription
        .run_bytes(|_: Message<Bytes>| async {})
        .concurrency(BATCH)
        .prefetch(2 * BATCH)
        .limit(messages as u64);
    Ok(runner.await?)
}

async fn ceiling(server: &RedisServer, messages: usize, each: bool) -> Result<f64> {
    let stream = Stream::create(server, NAME).await?;
    for _ in 0..messages / BATCH {
        stream.add_all(&texts(BATCH)).await?;
    }
    let mut readers = Vec::new();
    for _ in 0..TASKS {
        readers.push(stream.another().await?);
    }
    let begun = Instant::now();
    let tasks = readers.into_iter().map(|stream| {
        tokio::spawn(async move {
            let mut taken = 0;
            loop {
                let entries = stream.read(BATCH, None).await?;
                if entries.is_empty() {
                    return Ok::<_, Failure>(taken);
                }
                taken += entries.len();
                if each { stream.ack_each(&entries).await? } else { stream.ack_all(&entries).await? }
            }
        })
    });
    let mut taken = 0;
    for done in try_join_all(tasks.collect::<Vec<_>>()).await? {
        taken += done?;
    }
    let took = begun.elapsed();
    stream.drop().await?;
    if taken != messages {
        return Err(format!("{taken} of {messages} entries were read").into());
    }
    Ok(messages as f64 / took.as_secs_f64())
}
