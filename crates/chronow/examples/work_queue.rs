//! A work queue: several workers share the jobs of one subscription, and a job whose worker fails is tried
//! again.
//!
//! `cargo run -p chronow --example work_queue`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use chronow::{Chronow, Config, Message, PublishMessage};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Resize {
    picture: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::builder().embedded(folder.path()).build()?;
    let chronow = Chronow::connect(config, None).await?;

    let topic = chronow.bus().topic("pictures")?;
    topic.ensure().await?;
    let jobs = topic.subscription("resize")?;
    jobs.ensure().max_deliveries(3).backoff([Duration::from_millis(50)]).await?;
    topic.publish_batch((1..=20).map(|picture| PublishMessage::json(&Resize { picture }))).await?;
    println!("published 20 jobs");

    // Two workers, each with four jobs at once; on a real queue each would be a process of its own.
    let done: Arc<Mutex<BTreeMap<&str, Vec<u32>>>> = Arc::default();
    let mut workers = Vec::new();
    for worker in ["ada", "grace"] {
        let done = Arc::clone(&done);
        let handler = move |job: Message<Resize>| {
            let done = Arc::clone(&done);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                // The first try of every tenth job goes wrong.
                if job.payload.picture.is_multiple_of(10) && job.deliveries() == 1 {
                    println!("{worker}: picture {} failed, it comes again", job.payload.picture);
                    return Err("out of memory");
                }
                done.lock().entry(worker).or_default().push(job.payload.picture);
                Ok(())
            }
        };
        workers.push(jobs.run(handler).concurrency(4).start().await?);
    }

    while jobs.stats().await?.acked < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for worker in workers {
        worker.stop().await?;
    }
    let done = done.lock().clone();
    let mut all: Vec<u32> = done.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=20).collect::<Vec<_>>(), "every job was done once");
    assert_eq!(chronow.metrics().redelivered, 2);
    for (worker, pictures) in &done {
        println!("{worker} resized {} pictures", pictures.len());
    }
    chronow.close().await?;
    Ok(())
}
