//! A cache with a warm tier: values leave the hot tier when their time is over, and come back from the warm
//! one when they are read.
//!
//! `cargo run -p chronow --example cache_with_warm_tier`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use chronow::{Chronow, Config, ErrorKind};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::builder().embedded(folder.path()).build()?;
    let chronow = Chronow::connect(config, None).await?;
    let cache = chronow.shared().namespace("profiles")?;

    let short = Duration::from_millis(200);
    cache.set("ada", &json!({"plan": "team"})).ttl(short).persist().retention_days(90).await?;
    cache.set("session", &json!({"user": "ada"})).ttl(short).await?;
    assert!(cache.exists("session").await?);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(cache.get::<Value>("session").await?, None);
    println!("the session is gone: it was in the hot tier alone");
    let profile = cache.get::<Value>("ada").await?.ok_or("the warm tier has lost it")?;
    assert_eq!(profile["plan"], "team");
    println!("the profile came back from the warm tier: {profile}");

    // Who changes a value says which one it changes.
    let entry = cache.entry::<Value>("ada").await?.ok_or("it was there a moment ago")?;
    cache.compare_and_set("ada", entry.version, &json!({"plan": "solo"})).persist().await?;
    let late = cache.compare_and_set("ada", entry.version, &json!({"plan": "free"})).await;
    assert!(late.is_err_and(|error| error.kind() == ErrorKind::Conflict));
    println!("of two changes of one version the second one is refused");

    // Versions are kept where they are wanted.
    for limit in [10, 20, 30] {
        cache.set("limit", &limit).append().max_versions(2).await?;
    }
    let versions: Vec<_> = cache.versions("limit")?.try_collect().await?;
    let values: Vec<_> = versions.iter().map(|version| version.value.clone()).collect();
    assert_eq!(values, [json!(30), json!(20)]);
    println!("the last two versions of the limit: {}", json!(values));

    // What is deleted does not come back from anywhere.
    let mut changes = cache.watch("").await?;
    cache.del("ada").await?;
    let change =
        tokio::time::timeout(Duration::from_secs(10), changes.try_next()).await??.ok_or("the watch ended")?;
    assert!(change.key == "ada" && change.deleted);
    assert_eq!(cache.get::<Value>("ada").await?, None);
    println!("deleted: {}", change.key);
    chronow.close().await?;
    Ok(())
}
