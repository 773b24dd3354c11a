//! Transactions that stand in the way of a write on MongoDB: those that clients of this library left when they
//! died are ended, those of other programs are none of its business.

use std::time::Duration;

use bson::doc;
use chronos_db::documents::{Batch, DocumentStore as _, Guard, Outcome, Write};
use mongodb::options::{ClientOptions, DriverInfo};
use mongodb::{Client, ClientSession};

use crate::mongo::Scratch;
use crate::mongo::Server::ReplicaSet;

/// An open transaction that has written the document that the test wants to write.
struct Holder {
    session: ClientSession,
    client: Client,
}

impl Holder {
    /// `library` names what is built on the driver, as each client tells the server; the application has the
    /// name that this library's has by default.
    async fn new(scratch: &Scratch, library: Option<&str>) -> Self {
        let mut options = ClientOptions::parse(ReplicaSet.uri()).await.unwrap();
        options.app_name = Some("chronos".to_owned());
        options.driver_info = library.map(|name| DriverInfo::builder().name(name).build());
        let client = Client::with_options(options).unwrap();
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let mut holder = Self { session, client };
        holder.write(scratch).await;
        holder
    }

    async fn write(&mut self, scratch: &Scratch) {
        let namespace = &scratch.namespace;
        let documents =
            self.client.database(&namespace.database).collection::<bson::Document>(&namespace.collection);
        let update = documents.update_one(doc! { "_id": 1 }, doc! { "$inc": { "by": 1 } });
        update.session(&mut self.session).await.unwrap();
    }
}

async fn scratch(limit: Duration) -> Scratch {
    let uri = ReplicaSet.uri();
    let separator = if uri.contains('?') { "&" } else { "?" };
    let scratch = Scratch::at(format!("{uri}{separator}timeoutMS={}", limit.as_millis()));
    scratch.apply(vec![Write::insert(doc! { "_id": 1, "by": 0 })]).await;
    scratch
}

async fn write(scratch: &Scratch) -> chronos_db::Result<Vec<Outcome>> {
    let mut batch = Batch::new();
    batch.push(&scratch.namespace, Write::put(doc! { "_id": 1, "by": -1 }, Guard::Any));
    scratch.documents.apply(batch).await
}

#[tokio::test]
async fn the_transaction_of_a_client_that_is_gone_is_ended_by_the_write_that_waits_for_it() {
    let scratch = scratch(Duration::from_secs(30)).await;
    let mut holder = Holder::new(&scratch, Some("chronos-db")).await;
    assert_eq!(write(&scratch).await.unwrap(), [Outcome::Applied]);
    assert!(holder.session.commit_transaction().await.is_err(), "it has been ended");
    assert_eq!(scratch.all().await, [doc! { "_id": 1, "by": -1 }]);
}

#[tokio::test]
async fn the_transaction_of_another_program_is_left_alone_whatever_it_is_called() {
    for library in [None, Some("not-chronos-db"), Some("chronos-db-like")] {
        // Time for several looks.
        let scratch = scratch(Duration::from_secs(7)).await;
        let mut holder = Holder::new(&scratch, library).await;
        write(&scratch).await.unwrap_err();
        // One that was ended could not be committed. The write whose time is over may yet wait at the server
        // and come after it, so what is there says nothing.
        let committed = holder.session.commit_transaction().await;
        assert!(committed.is_ok(), "{library:?}: {committed:?}");
    }
}

#[tokio::test]
async fn a_transaction_at_work_is_waited_for_however_long_it_takes() {
    let scratch = scratch(Duration::from_secs(30)).await;
    let mut holder = Holder::new(&scratch, Some("chronos-db")).await;
    let at_work = async {
        // More often than the waiting write looks.
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            holder.write(&scratch).await;
        }
        holder.session.commit_transaction().await.unwrap();
    };
    let ((), written) = futures::future::join(at_work, write(&scratch)).await;
    assert_eq!(written.unwrap(), [Outcome::Applied]);
    assert_eq!(scratch.all().await, [doc! { "_id": 1, "by": -1 }]);
}
