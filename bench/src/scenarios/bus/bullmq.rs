//! The same jobs through BullMQ: its npm package, and its crate.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use chronow::Message;
use serde::Deserialize;

use super::{BATCH, connect, count, fill, on, subscribed};
use crate::measure::median;
use crate::report::Line;
use crate::server::{Aof, RedisServer};
use crate::{Context, Result, targets};

/// Jobs per second of a round.
const PER_SECOND: f64 = 10_000.0;
/// Jobs at work at once, theirs and ours.
const CONCURRENCY: usize = 100;
const BULLMQ: &str = "6.7.0";
/// The client it stands on.
const IOREDIS: &str = "6.0.0";
const SCRIPT: &str = include_str!("../../../bullmq.mjs");

/// Seconds it took.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Took {
    added: f64,
    processed: f64,
}

/// Jobs per second of one side, round by round.
#[derive(Debug, Default)]
struct Side {
    all: Vec<f64>,
    added: Vec<f64>,
    processed: Vec<f64>,
}

impl Side {
    fn push(&mut self, jobs: usize, took: Took) {
        let jobs = jobs as f64;
        self.all.push(jobs / (took.added + took.processed));
        self.added.push(jobs / took.added);
        self.processed.push(jobs / took.processed);
    }
}

async fn measured(
    context: &Context,
    name: &str,
    what: &str,
    theirs: impl AsyncFn(&RedisServer, usize) -> Result<Took>,
) -> Result<Vec<Line>> {
    let server = RedisServer::start(&context.dir, Aof::Everysec).await?;
    let jobs = count(context, PER_SECOND);
    let (mut our, mut their) = (Side::default(), Side::default());
    for round in 0..=context.rounds {
        let (ours, theirs) = (ours(&server, jobs).await?, theirs(&server, jobs).await?);
        if round > 0 {
            our.push(jobs, ours);
            their.push(jobs, theirs);
        }
    }
    let line = Line::against(name, "jobs/s", median(&our.all), median(&their.all), Some(targets::BULLMQ))
        .note("against", what)
        .note("jobs", jobs)
        .note("concurrency", CONCURRENCY)
        .note("bytes", 100)
        .note("added_per_s", median(&our.added).round())
        .note("processed_per_s", median(&our.processed).round())
        .note("their_added_per_s", median(&their.added).round())
        .note("their_processed_per_s", median(&their.processed).round());
    Ok(vec![on(line, &server)])
}

async fn ours(server: &RedisServer, jobs: usize) -> Result<Took> {
    let chronow = connect(server).await?;
    let (topic, subscription) = subscribed(&chronow, "jobs").await?;
    let begun = Instant::now();
    fill(&topic, jobs).await?;
    let added = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    subscription.run_bytes(|_: Message<Bytes>| async {}).concurrency(CONCURRENCY).limit(jobs as u64).await?;
    let processed = begun.elapsed().as_secs_f64();
    let acked = subscription.stats().await?.acked;
    if acked != jobs as u64 {
        return Err(format!("{acked} of {jobs} jobs were acknowledged").into());
    }
    topic.delete().await?;
    chronow.close().await?;
    Ok(Took { added, processed })
}

pub(crate) async fn npm(context: &Context) -> Result<Vec<Line>> {
    let script = tokio::task::spawn_blocking(installed).await??;
    let what = format!(
        "bullmq {BULLMQ}, ioredis {IOREDIS}, node {}",
        output(Command::new("node").arg("--version"))?.trim()
    );
    let run = async |server: &RedisServer, jobs: usize| {
        let mut node = Command::new("node");
        node.arg(&script)
            .args([usize::from(server.port()), jobs, BATCH, CONCURRENCY].map(|number| number.to_string()));
        let said = tokio::task::spawn_blocking(move || output(&mut node)).await??;
        Ok(serde_json::from_str(said.trim())?)
    };
    measured(context, "bullmq_npm", &what, run).await
}

/// Installs the package once for this user, and puts the script beside it.
fn installed() -> Result<PathBuf> {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => {
            return Err("there is no home whose cache the npm package could be installed into".into());
        }
    };
    let folder = cache.join(format!("chronos-bench/bullmq-{BULLMQ}-ioredis-{IOREDIS}"));
    let complete = folder.join(".complete");
    if !complete.exists() {
        std::fs::create_dir_all(&folder)?;
        let packages = [format!("bullmq@{BULLMQ}"), format!("ioredis@{IOREDIS}")];
        let options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--save-exact"];
        output(Command::new("npm").args(["install", "--prefix"]).arg(&folder).args(options).args(packages))?;
        std::fs::write(complete, "")?;
    }
    let script = folder.join("bench.mjs");
    std::fs::write(&script, SCRIPT)?;
    Ok(script)
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|failure| format!("{name} cannot be run: {failure}"))?;
    if !output.status.success() {
        return Err(format!(
            "{name} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(not(feature = "bullmq"))]
pub(crate) async fn of_the_crate(_: &Context) -> Result<Vec<Line>> {
    Err("this build is without the crate: it is the feature `bullmq`".into())
}

#[cfg(feature = "bullmq")]
pub(crate) async fn of_the_crate(context: &Context) -> Result<Vec<Line>> {
    measured(context, "bullmq_crate", "bullmq-official 1.4", of_the_crate::run).await
}

#[cfg(feature = "bullmq")]
mod of_the_crate {
    use std::time::{Duration, Instant};

    use bullmq::options::RedisConnectionOptions;
    use bullmq::types::RemoveOnFinish;
    use bullmq::worker::CancellationToken;
    use bullmq::{BulkJob, Job, JobOptions, Queue, QueueOptions, Worker, WorkerOptions};

    use super::{BATCH, CONCURRENCY, Took};
    use crate::Result;
    use crate::server::RedisServer;

    /// Milliseconds the worker may take to end.
    const CLOSING: u64 = 5_000;

    pub(super) async fn run(server: &RedisServer, jobs: usize) -> Result<Took> {
        let connection = || RedisConnectionOptions::new().url(server.url());
        let queue = Queue::with_options("bench-crate", QueueOptions::new().connection(connection())).await?;
        let text = "x".repeat(98);
        let begun = Instant::now();
        for _ in 0..jobs / BATCH {
            let options = || JobOptions::new().remove_on_complete(RemoveOnFinish::Bool(true));
            queue
                .add_bulk((0..BATCH).map(|_| BulkJob::with_options("job", &text, options())).collect())
                .await?;
        }
        let added = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let processor = |_: Job, _: CancellationToken| async { Ok(serde_json::Value::Null) };
        let options = WorkerOptions::new().connection(connection()).concurrency(CONCURRENCY);
        let worker = Worker::with_options("bench-crate", processor, options).await?;
        // It tells of each job after that is stored, but keeps only so many of these events; the counts tell,
        // too.
        loop {
            let counts = queue.get_job_counts().await?;
            if counts.waiting + counts.active == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let processed = begun.elapsed().as_secs_f64();
        worker.close(CLOSING).await?;
        queue.obliterate(true, BATCH).await?;
        Ok(Took { added, processed })
    }
}
