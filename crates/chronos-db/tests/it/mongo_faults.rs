//! The MongoDB document store when servers and networks fail, and at its beginning and end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use chronos_db::documents::mongo::MongoDocuments;
use chronos_db::documents::{Batch, DocumentStore, Guard, Namespace, Outcome, Scan, Write};
use chronos_db::{Env, Error, ErrorKind};
use futures::TryStreamExt as _;
use secrecy::SecretString;
use test_support::{Proxy, SilentPort};

use crate::mongo::Server::{ReplicaSet, Standalone};
use crate::mongo::{Scratch, open};

#[tokio::test]
async fn clients_of_one_uri_do_not_share_anything() {
    let (a, of_a) = open(Standalone.uri());
    let (b, of_b) = open(Standalone.uri());
    a.now().await.unwrap();
    assert_eq!((of_a.total(), of_b.total(), of_b.connections()), (1, 0, 0));
    a.close().await.unwrap();
    assert!(a.now().await.is_err());
    b.now().await.unwrap();
}

#[tokio::test]
async fn a_race_for_the_first_use_makes_one_client() {
    let (documents, stats) = open(Standalone.uri());
    futures::future::try_join_all((0..8).map(|_| documents.now())).await.unwrap();
    let after_race = stats.connections();
    assert!(after_race <= 8, "{after_race}");
    stats.reset();
    for _ in 0..5 {
        documents.now().await.unwrap();
    }
    assert_eq!(stats.connections(), 0);
}

#[tokio::test]
async fn a_closed_store_fails_later_calls_and_may_be_closed_again() {
    let s = Scratch::on(Standalone);
    s.apply(vec![Write::insert(doc! { "_id": 1 })]).await;
    s.documents.close().await.unwrap();
    s.documents.close().await.unwrap();
    assert!(s.documents.now().await.unwrap_err().message().contains("closed"));
    assert!(s.documents.scan(&s.namespace, Scan::default()).try_collect::<Vec<_>>().await.is_err());
    let unused = Scratch::on(Standalone);
    unused.documents.close().await.unwrap();
    assert_eq!(unused.stats.connections(), 0);
}

#[tokio::test]
async fn neither_debug_nor_errors_show_the_password() {
    let hosts = Standalone.uri();
    let hosts = hosts.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap();
    let hosts = hosts.rsplit('@').next().unwrap();
    let uri = SecretString::from(format!(
        "mongodb://ann:hush%40hush@{hosts}/?authSource=admin&directConnection=true"
    ));
    let documents = MongoDocuments::new(uri, Env::default()).unwrap();
    let error = documents.now().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Database, false), "{error}");
    let mut shown = format!("{documents:?} {error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(this) = cause {
        shown.push_str(&format!(" {this} {this:?}"));
        cause = this.source();
    }
    assert!(!shown.contains("hush"), "{shown}");
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn a_server_that_is_down_is_a_retryable_error_in_bounded_time() {
    let nobody = SilentPort::take();
    let uri = SecretString::from(format!("mongodb://{}/?serverSelectionTimeoutMS=1500", nobody.address()));
    let documents = MongoDocuments::new(uri, Env::default()).unwrap();
    let started = Instant::now();
    let mut batch = Batch::new();
    batch.push(&Namespace::new("d", "c"), Write::insert(doc! { "_id": 1 }));
    let error = documents.apply(batch).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Database, true));
    assert!(error.message().contains("nothing was written"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// How many milliseconds the driver looks for a server: long, where it is there all the time and only slow,
/// on a busy machine.
const PATIENT: u32 = 30_000;
/// And where the test takes it away.
const IMPATIENT: u32 = 1_500;

/// A store behind a network that the test breaks, and the same store past it.
async fn behind_a_proxy(patience: u32) -> (Proxy, Scratch, Scratch) {
    let proxy = Proxy::in_front_of(&ReplicaSet.uri()).await;
    let through = Scratch::at(direct(&proxy.uri(), patience));
    let mut past = Scratch::on(ReplicaSet);
    past.namespace = through.namespace.clone();
    is_found(&through).await;
    through.apply(vec![Write::insert(doc! { "_id": 0, "rev": 0 })]).await;
    (proxy, through, past)
}

/// Returns when the driver has found the server; one without patience may have to look for it again and
/// again.
async fn is_found(through: &Scratch) {
    let started = Instant::now();
    while through.documents.capabilities().await.is_err() || through.documents.now().await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "the server is not found");
        tokio::task::yield_now().await;
    }
}

/// The driver would go around the proxy to the host that the replica set names.
fn direct(uri: &str, patience: u32) -> String {
    let hosts = uri.split('?').next().unwrap_or(uri).trim_end_matches('/');
    format!(
        "{hosts}/?directConnection=true&serverSelectionTimeoutMS={patience}&connectTimeoutMS={patience}&heartbeatFrequencyMS=1000"
    )
}

fn put(rev: i32) -> Batch {
    let mut batch = Batch::new();
    let namespace = Namespace::new("unused", "unused");
    batch.push(&namespace, Write::put(doc! { "_id": 0, "rev": rev }, Guard::Newer { field: "rev".into() }));
    batch
}

fn to(mut batch: Batch, namespace: &Namespace) -> Batch {
    batch.operations.iter_mut().for_each(|operation| operation.namespace = namespace.clone());
    batch
}

#[tokio::test]
async fn an_insert_survives_connections_that_broke_while_idle() {
    let (proxy, through, _) = behind_a_proxy(PATIENT).await;
    proxy.drop_connections();
    assert_eq!(through.apply(vec![Write::insert(doc! { "_id": 1 })]).await, [Outcome::Applied]);
}

#[tokio::test]
async fn a_question_survives_connections_that_broke_while_idle() {
    let (proxy, through, _) = behind_a_proxy(PATIENT).await;
    proxy.drop_connections();
    through.documents.now().await.unwrap();
}

#[tokio::test]
async fn a_put_survives_connections_that_broke_while_idle() {
    let (proxy, through, _) = behind_a_proxy(PATIENT).await;
    proxy.drop_connections();
    assert_eq!(through.documents.apply(to(put(1), &through.namespace)).await.unwrap(), [Outcome::Applied]);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_a_retryable_error_and_nothing_is_taken_back() {
    for (write, found) in [
        (Write::insert(doc! { "_id": 1 }), doc! { "_id": 1 }),
        (put(7).operations.remove(0).write, doc! { "_id": 0, "rev": 7 }),
    ] {
        let (proxy, through, past) = behind_a_proxy(IMPATIENT).await;
        proxy.mute();
        let mut batch = Batch::new();
        batch.push(&through.namespace, write);
        let documents = Arc::clone(&through.documents);
        let writing = tokio::spawn(async move { documents.apply(batch).await });
        while !past.all().await.contains(&found) {
            tokio::task::yield_now().await;
        }
        proxy.cut();
        let error: Error = writing.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Database, true), "{error}");
        assert!(error.message().contains("may have taken place"), "{error}");
        assert!(past.all().await.contains(&found));
        proxy.restore();
        is_found(&through).await;
        assert!(!through.all().await.is_empty());
    }
}

#[tokio::test]
async fn writes_whose_answer_is_lost_are_sent_again_and_take_place_once() {
    let equals = |rev: i32| Guard::Equals { field: "rev".into(), value: rev.into() };
    let swap = |id: i32| Write::put(doc! { "_id": id, "rev": 7 }, equals(0));
    let writes: [(Vec<Write>, Document); 4] = [
        (vec![put(7).operations.remove(0).write], doc! { "_id": 0, "rev": 7 }),
        (vec![swap(0)], doc! { "_id": 0, "rev": 7 }),
        (vec![swap(0), swap(1)], doc! { "_id": 0, "rev": 7 }),
        (vec![Write::insert(doc! { "_id": 9 })], doc! { "_id": 9 }),
    ];
    for (writes, found) in writes {
        let (proxy, through, past) = behind_a_proxy(PATIENT).await;
        past.apply(vec![Write::insert(doc! { "_id": 1, "rev": 0 })]).await;
        let expected = vec![Outcome::Applied; writes.len()];
        let mut batch = Batch::new();
        for write in writes {
            batch.push(&through.namespace, write);
        }
        proxy.mute();
        let documents = Arc::clone(&through.documents);
        let writing = tokio::spawn(async move { documents.apply(batch).await });
        while !past.all().await.contains(&found) {
            tokio::task::yield_now().await;
        }
        proxy.drop_connections();
        proxy.restore();
        assert_eq!(writing.await.unwrap().unwrap(), expected, "{found}");
    }
}

#[tokio::test]
async fn a_call_given_up_half_way_harms_none_that_come_after_it() {
    let (proxy, through, _) = behind_a_proxy(PATIENT).await;
    through.documents.apply(to(put(1), &through.namespace)).await.unwrap();
    proxy.mute();
    for _ in 0..3 {
        let given_up = through.documents.apply(to(put(2), &through.namespace));
        assert!(tokio::time::timeout(Duration::from_millis(20), given_up).await.is_err());
    }
    proxy.restore();
    for rev in 3..20 {
        assert_eq!(
            through.documents.apply(to(put(rev), &through.namespace)).await.unwrap(),
            [Outcome::Applied]
        );
        assert_eq!(through.apply(vec![Write::insert(doc! { "_id": rev })]).await, [Outcome::Applied]);
    }
}

#[tokio::test]
async fn a_server_that_stops_answering_is_a_retryable_error_in_bounded_time() {
    let (proxy, through, _) = behind_a_proxy(IMPATIENT).await;
    proxy.stall();
    let started = Instant::now();
    let read = through.documents.get(&through.namespace, vec![0.into()]).await.unwrap_err();
    let written = through.documents.apply(to(put(1), &through.namespace)).await.unwrap_err();
    assert!(read.is_retryable() && written.is_retryable(), "{read} {written}");
    assert!(started.elapsed() < Duration::from_secs(60));
}
