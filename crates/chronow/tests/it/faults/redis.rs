//! Redis servers that die and come back, clusters that change their masters, and connections that break.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::Chronow;
use tempfile::TempDir;
use test_support::{Proxy, RedisCluster, RedisServer, servers};

use super::crew::{self, Crew};
use super::ledger::{Ledger, audit};
use super::{below, chance};
use crate::tiers::{connect, until};

const VISIBILITY: Duration = Duration::from_millis(1_500);
const CUTS: Duration = Duration::from_millis(150);

fn single(url: &str) -> Value {
    json!({ "redis": { "url": url }, "defaults": { "tenantId": servers::unique_name("tenant") } })
}

fn cluster(nodes: &[String]) -> Value {
    json!({ "redis": { "clusterNodes": nodes }, "defaults": { "tenantId": servers::unique_name("tenant") } })
}

fn ledger(folder: &TempDir) -> std::sync::Arc<Ledger> {
    Ledger::append(&Path::join(folder.path(), "ledger"))
}

/// So many more lines are in the ledger: everybody is at work.
async fn progress(ledger: &Ledger, lines: usize) {
    let begin = ledger.events().len();
    until("everybody is at work", || async { ledger.events().len() >= begin + lines }).await;
}

async fn finished(chronow: &Chronow, ledger: &std::sync::Arc<Ledger>, consumers: Crew, context: &str) {
    consumers.stop().await;
    audit(chronow, ledger, context).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_again_has_everything_it_acknowledged() {
    let (random, folder) = (chance(), tempfile::tempdir().unwrap());
    let mut server = RedisServer::durable().await;
    let (ledger, config) = (ledger(&folder), single(&server.url()));
    let chronow = connect(&config).await;
    crew::prepare(&chronow, VISIBILITY, 1).await;
    let consumers = Crew::consume(&chronow, &ledger);
    let kills = async {
        for _ in 0..3 {
            progress(&ledger, 20 + usize::try_from(below(&random, 60)).unwrap()).await;
            server.kill();
            server.restart().await;
        }
    };
    tokio::join!(kills, crew::publish(&chronow, &ledger, 0..150));
    finished(&connect(&config).await, &ledger, consumers, "a server that is killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_at_random_lose_and_double_nothing() {
    let (random, folder) = (chance(), tempfile::tempdir().unwrap());
    let proxy = Proxy::in_front_of(&servers::redis_url()).await;
    let (ledger, mut config) = (ledger(&folder), single(&servers::redis_url()));
    let direct = connect(&config).await;
    crew::prepare(&direct, VISIBILITY, 1).await;
    config["redis"]["url"] = proxy.uri().into();
    let chronow = connect(&config).await;
    let consumers = Crew::consume(&chronow, &ledger);
    super::cutting(&proxy, &random, CUTS, &ledger, crew::publish(&chronow, &ledger, 0..150)).await;
    finished(&direct, &ledger, consumers, "connections cut at random").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_of_a_cluster_that_hand_over_lose_and_double_nothing() {
    let (random, folder) = (chance(), tempfile::tempdir().unwrap());
    let nodes = RedisCluster::start(3, 1, &[]).await;
    let (ledger, config) = (ledger(&folder), cluster(&nodes.addresses()));
    let chronow = connect(&config).await;
    // On all masters.
    crew::prepare(&chronow, VISIBILITY, 6).await;
    let consumers = Crew::consume(&chronow, &ledger);
    let changed = Cell::new(false);
    let changes = async {
        for master in 0..3 {
            progress(&ledger, 20 + usize::try_from(below(&random, 60)).unwrap()).await;
            nodes.hand_over(master).await;
        }
        changed.set(true);
    };
    // Until then there is work for everybody, however long it takes.
    let numbers = (0..crew::PUBLISHER).take_while(|n| *n < 150 || !changed.get());
    tokio::join!(changes, crew::publish(&chronow, &ledger, numbers));
    finished(&chronow, &ledger, consumers, "masters that hand over").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_goes_on_with_everything_it_had_when_its_master_died() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = RedisCluster::start(3, 1, &[]).await;
    let (ledger, config) = (ledger(&folder), cluster(&nodes.addresses()));
    let chronow = connect(&config).await;
    crew::prepare(&chronow, Duration::from_secs(6), 6).await;
    crew::publish(&chronow, &ledger, 0..40).await;
    // Half of it is done, some of it is in hand.
    let begin = ledger.events().len();
    let consumers = Crew::consume(&chronow, &ledger);
    until("half of it is done", || async { ledger.events().len() >= begin + 60 }).await;
    consumers.stop().await;
    let hot = chronow.hot();
    let subscription = chronow.bus().topic(crew::TOPIC).unwrap().subscription("tame").unwrap();
    crew::publish(&chronow, &ledger, 40..60).await;
    drop(hot.pull(subscription.name(), 10).await.unwrap());
    nodes.fail_over(1).await;
    let consumers = Crew::consume(&chronow, &ledger);
    crew::publish(&chronow, &ledger, 60..90).await;
    finished(&connect(&config).await, &ledger, consumers, "a master that died").await;
}

/// A cluster of one node behind a proxy that its clients cannot go around.
async fn hidden_cluster() -> (RedisCluster, Proxy, Value) {
    let nodes = RedisCluster::start(1, 0, &[]).await;
    let node = nodes.master(0);
    let proxy = Proxy::in_front_of(&node.address()).await;
    let port = proxy.address().port().to_string();
    assert_eq!(
        node.run(&["CONFIG", "SET", "cluster-announce-ip", "127.0.0.1", "cluster-announce-port", &port])
            .await,
        "OK"
    );
    until("it says where it wants to be called", || async {
        node.run(&["CLUSTER", "SLOTS"]).await.contains(&port)
    })
    .await;
    let config = cluster(&[proxy.address().to_string()]);
    (nodes, proxy, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_cluster_cut_at_random_lose_and_double_nothing() {
    let (random, folder) = (chance(), tempfile::tempdir().unwrap());
    let (nodes, proxy, config) = hidden_cluster().await;
    let ledger = ledger(&folder);
    let chronow = connect(&config).await;
    crew::prepare(&chronow, VISIBILITY, 3).await;
    let consumers = Crew::consume(&chronow, &ledger);
    super::cutting(&proxy, &random, CUTS, &ledger, crew::publish(&chronow, &ledger, 0..150)).await;
    finished(&connect(&config).await, &ledger, consumers, "connections to a cluster cut at random").await;
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_answer_was_lost_is_not_sent_to_a_cluster_again() {
    let (nodes, proxy, config) = hidden_cluster().await;
    let chronow = connect(&config).await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    topic.subscription("s").unwrap().ensure().await.unwrap();
    topic.publish(&0).await.unwrap();
    chronow.shared().increment("n", 1).await.unwrap();
    let stream = nodes.master(0).run(&["KEYS", "*topic:t}"]).await;
    proxy.mute();
    let publishing = tokio::spawn({
        let topic = topic.clone();
        async move { topic.publish(&1).await }
    });
    let counting = tokio::spawn({
        let hot = std::sync::Arc::clone(chronow.hot());
        let scope = chronow::Scope::new(config["defaults"]["tenantId"].as_str().unwrap(), "default").unwrap();
        async move { hot.increment(&scope, "n", 1, None).await }
    });
    let value = nodes.master(0).run(&["KEYS", "*:sm:n"]).await;
    until("both took place", || async {
        let node = nodes.master(0);
        node.run(&["XLEN", &stream]).await == "2" && node.run(&["HGET", &value, "value"]).await == "2"
    })
    .await;
    proxy.drop_connections();
    proxy.restore();
    for error in [publishing.await.unwrap().unwrap_err(), counting.await.unwrap().unwrap_err()] {
        assert!(error.is_retryable() && error.to_string().contains("may have taken place"), "{error}");
    }
    assert_eq!(topic.stats().await.unwrap().length, 2);
    assert_eq!(chronow.shared().get::<i64>("n").await.unwrap(), Some(2));
}
