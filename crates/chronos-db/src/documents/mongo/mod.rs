//! MongoDB 4.4 and later: a standalone server, a replica set or a sharded cluster, through the official driver.
//!
//! Every write asks for a journaled majority and every read goes to the primary, whatever the connection string says: what a call reported as
//! applied is there for the next read, and stays.

mod apply;
mod client;
mod command;
mod ensure;
mod failure;
mod look;
mod retries;
mod scan;
#[cfg(feature = "testing")]
mod traffic;
mod transaction;
mod uri;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use mongodb::options::{ReturnDocument, WriteConcern};
use secrecy::SecretString;

use self::client::{Connector, Lease};
use self::failure::{Failure, is_duplicate};
use crate::documents::{
    Atomicity, Batch, BuildBatch, Capabilities, Deployment, Documents, Filter, Index, Namespace, Outcome, Scan, Sequence,
};
use crate::{Error, Result, Runtime, Timestamp};

#[cfg(feature = "testing")]
pub use self::traffic::Traffic;

/// How many `_id`s one `find` asks for.
const IDS_PER_FIND: usize = 1_000;
/// How often the creation of a sequence may meet another creation of it.
const SEQUENCE_ATTEMPTS: u32 = 5;

/// One MongoDB deployment with all its databases.
///
/// Its client is made on first use, belongs to it alone, and is shared by everything that holds it.
pub struct MongoDocuments {
    connector: Arc<Connector>,
}

impl MongoDocuments {
    /// The deployment at `uri` (`mongodb://…` or `mongodb+srv://…`). Does no I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the connection string is malformed; the message doesn't show its secrets.
    pub fn new(uri: SecretString, runtime: Runtime) -> Result<Self> {
        Ok(Self { connector: Arc::new(Connector::new(uri, runtime, None)?) })
    }

    /// The same, with a count of the commands and connections it causes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "testing")]
    pub fn observed(uri: SecretString, runtime: Runtime) -> Result<(Self, Arc<Traffic>)> {
        let traffic = Arc::new(Traffic::default());
        let connector = Connector::new(uri, runtime, Some(traffic.observer()))?;
        Ok((Self { connector: Arc::new(connector) }, traffic))
    }

    async fn apply_each(&self, plan: &apply::Plan, lease: &Lease) -> Result<Vec<Outcome>, Failure> {
        let retries = if plan.only_inserts() { None } else { self.connector.retries(lease).await? };
        plan.run(lease, retries, &self.connector.runtime().fail).await
    }

    async fn apply_all(&self, plan: &apply::Plan, lease: &Lease) -> Result<Vec<Outcome>, Failure> {
        if self.connector.capabilities(lease).await?.transactions {
            return transaction::run(plan, lease, self.connector.runtime()).await;
        }
        Err(Failure::Ours(Error::validation(format!(
            "{} is a standalone server, which has no transactions; use a replica set, or a batch in which each operation stands for itself",
            self.connector.place()
        ))))
    }

    async fn take_numbers(&self, namespace: &Namespace, name: &str, count: u32, concern: &WriteConcern) -> Result<Sequence> {
        if count == 0 {
            return Err(Error::validation(format!("at least one number of the sequence `{name}` must be asked for")));
        }
        let lease = self.connector.lease().await?;
        let counter = self
            .next_numbers(&lease, namespace, name, count, concern)
            .await
            .map_err(|f| self.connector.explain(f, "taking numbers of a sequence"))?;
        let wrong = |_| Error::database(format!("the counter `{name}` in {namespace:?} does not hold a whole number"));
        let value = counter.get_i64("value").map_err(wrong)?;
        let now = counter.get_datetime("at").map_err(wrong)?;
        Ok(Sequence { first: value - i64::from(count) + 1, count, now: Timestamp::from(*now) })
    }

    async fn find_ids(&self, lease: &Lease, namespace: &Namespace, ids: &[Bson]) -> Result<Vec<RawDocumentBuf>, Failure> {
        let filter = match ids {
            [one] => doc! { "_id": { "$eq": one } },
            many => doc! { "_id": { "$in": many } },
        };
        Ok(lease.collection(namespace).clone_with_type().find(filter).await?.try_collect().await?)
    }

    async fn next_numbers(
        &self,
        lease: &Lease,
        namespace: &Namespace,
        name: &str,
        count: u32,
        concern: &WriteConcern,
    ) -> Result<Document, Failure> {
        let value = doc! { "$add": [{ "$toLong": { "$ifNull": ["$value", -1_i64] } }, i64::from(count)] };
        let update = vec![doc! { "$set": { "value": value, "at": "$$NOW" } }];
        let mut attempt = 1;
        loop {
            let taken = lease
                .collection(namespace)
                .find_one_and_update(doc! { "_id": name }, update.clone())
                .upsert(true)
                .return_document(ReturnDocument::After)
                .write_concern(concern.clone())
                .await;
            match taken {
                Ok(Some(counter)) => return Ok(counter),
                Ok(None) => return Err(Error::database(format!("the server gave out no numbers of the sequence `{name}`")).into()),
                // Two callers found no counter; the one that came second meets the document of the first.
                Err(e) if is_duplicate(&e) && attempt < SEQUENCE_ATTEMPTS => attempt += 1,
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl fmt::Debug for MongoDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoDocuments").field("at", &self.connector.place()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Documents for MongoDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        let lease = self.connector.lease().await?;
        self.connector.capabilities(&lease).await.map_err(|f| self.connector.explain(f, "asking for capabilities"))
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let plan = apply::Plan::new(batch.operations)?;
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let lease = self.connector.lease().await?;
        let applied = match batch.atomicity {
            Atomicity::Each => self.apply_each(&plan, &lease).await,
            Atomicity::All => self.apply_all(&plan, &lease).await,
        };
        applied.map_err(|f| self.connector.explain_write(f))
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.take_numbers(namespace, name, count, &command::durable()).await
    }

    async fn sequence_then(&self, namespace: &Namespace, name: &str, count: u32, build: BuildBatch) -> Result<(Sequence, Vec<Outcome>)> {
        // The rows are journaled by a majority, and with them whatever the same server wrote before, these numbers among it. If the rows are not,
        // nobody was told of the numbers; and numbers given out twice by servers that lost touch meet at the unique index.
        let sequence = self.take_numbers(namespace, name, count, &command::on_its_way()).await?;
        self.connector.runtime().fail.hit("mongo.after_sequence")?;
        let outcomes = self.apply(build(sequence)?).await?;
        Ok((sequence, outcomes))
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        let mut found = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(found);
        }
        let lease = self.connector.lease().await?;
        for ids in ids.chunks(IDS_PER_FIND) {
            let part = self.find_ids(&lease, namespace, ids).await;
            found.extend(part.map_err(|f| self.connector.explain(f, "reading documents"))?);
        }
        Ok(found)
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        scan::stream(Arc::clone(&self.connector), namespace.clone(), scan)
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let lease = self.connector.lease().await?;
        let counted = scan::count(&lease, namespace, &filter, at_most).await;
        counted.map_err(|f| self.connector.explain(f, "counting documents"))
    }

    async fn now(&self) -> Result<Timestamp> {
        let lease = self.connector.lease().await?;
        let hello = lease.hello().await.map_err(|f| self.connector.explain(f, "asking for the time"))?;
        let at = hello.get_datetime("localTime").map_err(|_| Error::database("the server does not tell its time"))?;
        Ok(Timestamp::from(*at))
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        let lease = self.connector.lease().await?;
        let ensured = ensure::ensure(&lease, namespace, indexes).await;
        self.connector.known_indexes().forget(namespace);
        ensured.map_err(|f| self.connector.explain(f, "creating indexes"))
    }

    async fn deployment(&self) -> Result<Deployment> {
        let lease = self.connector.lease().await?;
        look::deployment(&lease).await.map_err(|f| self.connector.explain(f, "asking which deployment it is"))
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        let lease = self.connector.lease().await?;
        look::collections(&lease, database).await.map_err(|f| self.connector.explain(f, "listing collections"))
    }

    async fn close(&self) -> Result<()> {
        self.connector.close().await;
        Ok(())
    }
}
