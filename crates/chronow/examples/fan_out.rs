//! Fan-out: every subscription gets every message, and its failures, retries and dead letters are its own.
//!
//! `cargo run -p chronow --example fan_out`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use chronow::{Chronow, Config, Message, Outcome};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let config = Config::builder().embedded(folder.path()).build()?;
    let chronow = Chronow::connect(config, None).await?;

    let payments = chronow.bus().topic("payments")?;
    payments.ensure().await?;
    let ledger = payments.subscription("ledger")?;
    ledger.ensure().await?;
    let fraud = payments.subscription("fraud")?;
    fraud
        .ensure()
        .filter(json!({"payload.amount": {"$gte": 100}}))
        .max_deliveries(3)
        .backoff([Duration::from_millis(30)])
        .await?;

    for (order, amount) in [(1, 20), (2, 250), (3, 100), (4, 9_999)] {
        payments
            .publish(&json!({"order": order, "amount": amount}))
            .header("type", "payment.created")
            .await?;
    }

    // The ledger takes them all.
    let booking = ledger
        .run(|payment: Message<Value>| async move {
            println!("ledger: booked order {}", payment.payload["order"])
        })
        .limit(4)
        .start()
        .await?;
    // The other one sees only large ones, and cannot stand the largest.
    let checking = fraud
        .run(|payment: Message<Value>| async move {
            let order = &payment.payload["order"];
            if payment.payload["amount"] == 9_999 {
                println!("fraud: order {order} failed, try {}", payment.deliveries());
                return Outcome::from(Err::<(), _>("the model does not answer"));
            }
            println!("fraud: order {order} is fine");
            Outcome::Ack
        })
        .limit(5)
        .start()
        .await?;
    booking.join().await?;
    checking.join().await?;

    let counts = ledger.stats().await?;
    assert_eq!(
        (counts.acked, counts.deliveries, counts.dead_letters),
        (4, 4, 0),
        "the ledger saw nothing of that"
    );
    let dead: Vec<_> = fraud.dead_letters().stream().try_collect().await?;
    assert_eq!(dead.len(), 1);
    println!("fraud: one dead letter after {} deliveries: {}", dead[0].deliveries, dead[0].reason);

    // The model is back.
    assert_eq!(fraud.redrive().await?, 1);
    let again = fraud.receive::<Value>(1).await?;
    assert_eq!(again[0].payload["order"], 4);
    println!("fraud: order 4 comes again, to this subscription alone");
    fraud.ack_all(again).await?;
    let counts = fraud.stats().await?;
    assert_eq!((counts.acked, counts.dead_letters, counts.backlog), (3, 0, 0));
    chronow.close().await?;
    Ok(())
}
