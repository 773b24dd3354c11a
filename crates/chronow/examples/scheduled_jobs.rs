//! Scheduled jobs: messages that come later, and can be taken back until then.
//!
//! `cargo run -p chronow --example scheduled_jobs`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::{Duration, Instant};

use chronow::{Chronow, Config};
use futures::StreamExt as _;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::builder().embedded(folder.path()).build()?;
    let chronow = Chronow::connect(config, None).await?;

    let mails = chronow.bus().topic("mails")?;
    mails.ensure().await?;
    let sender = mails.subscription("sender")?;
    sender.ensure().await?;

    let begun = Instant::now();
    let reminder = json!({"to": "ada@example.org", "text": "your trial ends"});
    let second = mails.publish(&reminder).delay(Duration::from_millis(800)).await?;
    mails
        .publish(&json!({"to": "ada@example.org", "text": "one week left"}))
        .delay(Duration::from_millis(300))
        .await?;
    // A date works as well, and an id makes sure that the job is there once, whichever process schedules it
    // again.
    let tomorrow = chronow.hot().now().await?.plus_millis(24 * 3_600_000);
    mails.publish(&json!({"text": "report"})).at(tomorrow).dedup_id("report-1").await?;
    assert!(mails.publish(&json!({"text": "report"})).at(tomorrow).dedup_id("report-1").await?.duplicate);
    assert_eq!(sender.stats().await?.scheduled, 3);

    let mut due = sender.consume::<Value>().await?;
    let mail = due.next().await.ok_or("the stream ended")??;
    let after = begun.elapsed();
    assert_eq!(mail.payload["text"], "one week left");
    assert!(after >= Duration::from_millis(300));
    println!("after {} ms: {}", after.as_millis(), mail.payload["text"]);
    mail.ack().await?;

    // Ada has paid.
    assert!(mails.cancel(&second.id).await?, "its time had not come");
    println!("taken back: {}", reminder["text"]);
    let nothing = tokio::time::timeout(Duration::from_millis(900), due.next()).await;
    assert!(nothing.is_err(), "nothing else is due today");
    assert!(!mails.cancel(&second.id).await?, "it is not scheduled any more");
    due.close().await?;
    assert_eq!(sender.stats().await?.scheduled, 1);
    println!("still scheduled: the report of tomorrow");
    chronow.close().await?;
    Ok(())
}
