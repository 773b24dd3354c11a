//! What a write costs.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::mongo::MongoDocuments;
use chronos_db::{Env, json};
use secrecy::SecretString;
use test_support::{Counting, Delaying, Meter, MockClock, documents, objects};

use super::pairing::{Pairing, TIMEOUT, on_every_pairing};

on_every_pairing!(
    a_create_is_one_call_to_the_database_and_one_put,
    a_create_writes_a_row_and_a_head_and_reads_nothing,
    a_read_of_what_was_just_written_asks_the_index_alone,
);

/// What only a server can be sent.
mod on_servers {
    use super::super::pairing::on_pairings;
    use super::*;

    on_pairings!(standalone_local = StandaloneLocal: a_create_sends_three_commands_at_most_and_opens_no_connection);
    on_pairings!(replica_set_s3 = ReplicaSetS3: a_create_sends_three_commands_at_most_and_opens_no_connection);
    on_pairings!(replica_set_azure = ReplicaSetAzure: a_create_sends_three_commands_at_most_and_opens_no_connection);
}

/// N-31, G-52.
async fn a_create_is_one_call_to_the_database_and_one_put(p: &Pairing) {
    let (database, storage) = (Counting::<documents::Call>::new(), Counting::<objects::Call>::new());
    let store = p.opening().documents(&database).objects(&storage).open();
    let users = store.users();
    users.create(json!({"n": 0})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    database.take();
    storage.take();
    users.create(json!({"n": 1})).await.unwrap();
    assert_eq!(database.count(documents::Call::SequenceThen), 1);
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(storage.take(), [(objects::Call::Put, 1)], "no look before, no reading back");
    users.update(&users.list().await.unwrap().items[0].id, json!({"n": 2})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(storage.take(), [(objects::Call::Put, 1)]);
}

/// N-31: on every engine, while the flusher is held back.
async fn a_create_writes_a_row_and_a_head_and_reads_nothing(p: &Pairing) {
    let (client, gauge) = p.observed();
    let meter = Arc::<Meter>::default();
    let clock = Arc::new(MockClock::default());
    let delay = Delaying::<objects::Call>::new(clock.clone());
    let client = documents::metered(client, Arc::clone(&meter));
    let users = p.opening().documents_client(client).objects(&delay).open().users();
    users.create(json!({"n": 0})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    delay.delay(objects::Call::Put, Duration::from_secs(1));
    meter.take();
    gauge.begin(users.database()).await;
    users.create(json!({"n": 1})).await.unwrap();
    let spent = gauge.end(users.database()).await;
    let moved = meter.take();
    assert_eq!((moved.calls, moved.written, moved.read), (1, 2, 0), "{moved:?}");
    // An embedded store takes steps to find its place in each index, a server examines the counter.
    assert!(spent.requests <= 3 && spent.examined <= 200, "{spent:?}");
    clock.sleepers(1).await;
    delay.delay(objects::Call::Put, Duration::ZERO);
    clock.advance(Duration::from_secs(1));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
}

/// N-31: counted on the wire, while the flusher is held back.
async fn a_create_sends_three_commands_at_most_and_opens_no_connection(p: &Pairing) {
    let uri = p.config(&json!({}))["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
    let (client, stats) = MongoDocuments::observed(SecretString::from(uri), Env::default()).unwrap();
    let clock = Arc::new(MockClock::default());
    let delay = Delaying::<objects::Call>::new(clock.clone());
    let store = p.opening().documents_client(Arc::new(client)).objects(&delay).open();
    let users = store.users();
    users.create(json!({"n": 0})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    delay.delay(objects::Call::Put, Duration::from_secs(1));
    stats.reset();
    users.create(json!({"n": 1})).await.unwrap();
    assert!(stats.total() <= 3, "{:?}", stats.commands());
    assert_eq!(stats.connections(), 0);
    clock.sleepers(1).await;
    delay.delay(objects::Call::Put, Duration::ZERO);
    clock.advance(Duration::from_secs(1));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(stats.connections(), 0);
}

async fn a_read_of_what_was_just_written_asks_the_index_alone(p: &Pairing) {
    let (database, storage) = (Counting::<documents::Call>::new(), Counting::<objects::Call>::new());
    let store = p.opening().documents(&database).objects(&storage).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    database.take();
    storage.take();
    users.get(&id).await.unwrap().unwrap();
    assert_eq!((database.take(), storage.take()), (vec![(documents::Call::Get, 1)], vec![]));
}
