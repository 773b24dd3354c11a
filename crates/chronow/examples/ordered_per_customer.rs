//! Order per customer: messages of one ordering key are handled one at a time and in order, those of
//! different keys at once.
//!
//! `cargo run -p chronow --example ordered_per_customer`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chronow::{Chronow, Config, Message, PublishMessage};
use parking_lot::Mutex;
use serde_json::{Value, json};

const CUSTOMERS: [&str; 3] = ["ada", "grace", "edsger"];
const STEPS: [&str; 4] = ["ordered", "paid", "packed", "sent"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::builder().embedded(folder.path()).build()?;
    let chronow = Chronow::connect(config, None).await?;

    let orders = chronow.bus().topic("orders")?;
    orders.ensure().await?;
    let mailer = orders.subscription("mailer")?;
    mailer.ensure().backoff([Duration::from_millis(50)]).await?;
    for step in STEPS {
        orders
            .publish_batch(
                CUSTOMERS.map(|customer| PublishMessage::json(&json!({ "step": step })).key(customer)),
            )
            .await?;
    }

    let seen: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (seen, now, most) = (Arc::clone(&seen), Arc::clone(&now), Arc::clone(&most));
        move |message: Message<Value>| {
            let (seen, now, most) = (Arc::clone(&seen), Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                let (customer, step) =
                    (message.key().unwrap_or_default(), message.payload["step"].as_str().unwrap_or_default());
                // A failure holds back what comes behind it, of this customer alone.
                if (customer, step, message.deliveries()) == ("grace", "paid", 1) {
                    println!("{customer}: {step} failed, and comes again before anything else of hers");
                    return Err("the mail server is busy");
                }
                println!("{customer}: {step}");
                seen.lock().entry(customer.to_owned()).or_default().push(step.to_owned());
                Ok(())
            }
        }
    };
    let runner = mailer.run(handler).concurrency(8).limit(13).start().await?;
    runner.join().await?;

    let seen = seen.lock().clone();
    for customer in CUSTOMERS {
        assert_eq!(seen[customer], STEPS, "{customer}'s messages came in order");
    }
    let most = most.load(Ordering::SeqCst);
    assert!(
        (2..=CUSTOMERS.len()).contains(&most),
        "one per customer at a time, and several customers at once"
    );
    println!("in order for each customer, {most} customers at once");
    chronow.close().await?;
    Ok(())
}
