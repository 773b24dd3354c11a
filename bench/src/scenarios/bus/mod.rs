//! The bus on Redis, on a server of the bench's own; every line says what that server writes down.

pub(super) mod bullmq;
pub(super) mod consume;
pub(super) mod end_to_end;
pub(super) mod publish;

use bytes::Bytes;
use chronow::{Chronow, Config, PublishMessage, Redis, Subscription, Topic};

use crate::report::Line;
use crate::server::RedisServer;
use crate::{Context, Failure, Result};

/// Messages of one batch: of a publish, of a pull, of a pipeline.
const BATCH: usize = 500;
/// Batches under way at once.
const TASKS: usize = 4;
/// More than any round publishes.
const ROOM: u64 = 100_000_000;

/// A JSON text of 100 bytes that begins with a number.
fn payload(number: u64) -> String {
    format!("\"{number:<98}\"")
}

fn batch_of(count: usize) -> Vec<PublishMessage> {
    (0..count as u64).map(|number| PublishMessage::bytes(Bytes::from(payload(number)), "")).collect()
}

fn texts(count: usize) -> Vec<String> {
    (0..count as u64).map(payload).collect()
}

/// How many messages a scenario that has a number of them, not a time, moves in a round.
fn count(context: &Context, per_second: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred thousands")]
    let batches = (per_second * context.round.as_secs_f64() / BATCH as f64).ceil() as usize;
    batches.max(TASKS) * BATCH
}

fn config(server: &RedisServer) -> Result<Config> {
    Ok(Config::builder().redis(Redis::single(server.url())).build()?)
}

async fn connect(server: &RedisServer) -> Result<Chronow> {
    Ok(Chronow::connect(config(server)?, None).await?)
}

/// A new topic with one subscription, whose retries and dead letters are on, as they always are.
async fn subscribed(chronow: &Chronow, name: &str) -> Result<(Topic, Subscription)> {
    let topic = chronow.bus().topic(name)?;
    topic.delete().await?;
    topic.ensure().max_len(ROOM).await?;
    let subscription = topic.subscription("s")?;
    subscription.ensure().await?;
    Ok((topic, subscription))
}

/// Publishes this many, in batches, several at once.
async fn fill(topic: &Topic, messages: usize) -> Result<()> {
    let batches = messages.div_ceil(BATCH);
    let publishers = (0..TASKS).map(|task| {
        let topic = topic.clone();
        tokio::spawn(async move {
            for _ in (task..batches).step_by(TASKS) {
                topic.publish_batch(batch_of(BATCH)).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await??;
    }
    Ok(())
}

/// What stands beside every figure of Redis.
fn on(line: Line, server: &RedisServer) -> Line {
    line.note("aof", server.aof().name()).note("redis", server.version())
}
