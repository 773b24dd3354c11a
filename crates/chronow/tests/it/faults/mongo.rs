//! Connections to MongoDB that break at any moment.

use std::time::Duration;

use test_support::Proxy;

use super::chance;
use super::crew::{self, Crew};
use super::ledger::{Ledger, audit};
use crate::tiers::{World, connect, on_mongo};

on_mongo! {
    connections_cut_at_random_lose_and_double_nothing,
}

async fn connections_cut_at_random_lose_and_double_nothing(world: World) {
    let random = chance();
    let ledger = Ledger::append(&world.file("ledger"));
    crew::prepare(&world.chronow, Duration::from_millis(1_500), 1).await;
    let proxy = Proxy::in_front_of(world.config["mongoUri"].as_str().unwrap()).await;
    let uri = format!(
        "mongodb://{}/?directConnection=true&serverSelectionTimeoutMS=2000&connectTimeoutMS=2000",
        proxy.address()
    );
    let mut config = world.config.clone();
    config["mongoUri"] = uri.into();
    let chronow = connect(&config).await;
    let consumers = Crew::consume(&chronow, &ledger);
    let publishing = crew::publish(&chronow, &ledger, 0..36);
    // After a failure the driver looks at the server twice a second.
    super::cutting(&proxy, &random, Duration::from_millis(1_200), &ledger, publishing).await;
    consumers.stop().await;
    proxy.restore();
    audit(&world.chronow, &ledger, "connections cut at random").await;
}
