//! MongoDB 4.4 and later: a standalone server, a replica set or a sharded cluster, through the official
//! driver.
//!
//! Every write asks for a journaled majority, and every read goes to the primary and sees only what a
//! majority has, whatever the connection string says: what a call reported as applied is there for the next
//! read of the same client, and stays; what a failover could still undo is not seen.
//!
//! Every call ends, after [30 seconds](DEFAULT_TIMEOUT) unless set otherwise: what changes nothing twice is
//! repeated until then, over elections and broken connections. When a write's time is over, its outcome is
//! not known.
//!
//! From the ground up: `uri.rs`, `options.rs` and `failure.rs`; `client.rs` owns the driver's client and what
//! is known of the deployment; `call.rs` bounds and repeats; `command.rs` and `retries.rs` send writes;
//! `apply.rs`, `transaction.rs`, `ensure.rs` and `scan.rs` are the calls of the seam; `abandoned.rs` ends
//! what dead clients left open. `mongodb` is used in this folder alone.

mod abandoned;
mod apply;
mod call;
mod client;
mod command;
mod concern;
mod ensure;
mod failure;
mod known_indexes;
mod look;
mod numbered;
pub(crate) mod options;
mod retries;
mod rights;
mod scan;
#[cfg(feature = "testing")]
mod stats;
mod transaction;
mod uri;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use secrecy::SecretString;

use self::call::Call;
use self::client::Connector;
use self::concern::Concern;
use self::failure::{Failure, is_duplicate};
use crate::documents::{
    Atomicity, Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Filter, Index, Namespace,
    Numbered, Outcome, Rights, Scan, Sequence,
};
use crate::{Env, Error, Result, Timestamp};

pub use self::client::DEFAULT_TIMEOUT;
#[cfg(feature = "testing")]
pub use self::stats::CommandStats;

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
    /// Opens the deployment at `uri` (`mongodb://…` or `mongodb+srv://…`). Does no I/O: it connects with the
    /// first call.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the connection string is malformed; the message doesn't show its secrets.
    pub fn new(uri: SecretString, env: Env) -> Result<Self> {
        Ok(Self { connector: Arc::new(Connector::new(uri, env, None)?) })
    }

    /// Opens a deployment, and counts the commands and connections it causes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "testing")]
    pub fn observed(uri: SecretString, env: Env) -> Result<(Self, Arc<CommandStats>)> {
        let stats = Arc::new(CommandStats::default());
        let connector = Connector::new(uri, env, Some(stats.observer()))?;
        Ok((Self { connector: Arc::new(connector) }, stats))
    }

    /// Bounds a call, repetitions included; [`DEFAULT_TIMEOUT`] unless the connection string says
    /// `timeoutMS`. Where no server is found within it, the call fails.
    ///
    /// ```
    /// # fn main() -> chronos_db::Result<()> {
    /// use std::time::Duration;
    /// use chronos_db::documents::mongo::MongoDocuments;
    ///
    /// let documents = MongoDocuments::new("mongodb://localhost".into(), Default::default())?.timeout(Duration::from_secs(5));
    /// # let _ = documents; Ok(()) }
    /// ```
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.connector.set_limit(limit);
        self
    }

    async fn take_numbers(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        concern: Concern,
    ) -> Result<Sequence> {
        if count == 0 {
            return Err(Error::validation(format!(
                "at least one number of the sequence `{name}` must be asked for"
            )));
        }
        let counter = {
            let (namespace, name) = (namespace.clone(), name.to_owned());
            self.connector
                .once(move |call| async move { next_numbers(&call, &namespace, &name, count, concern).await })
                .await
        };
        let counter = counter.map_err(|f| self.connector.explain(f, "taking numbers of a sequence"))?;
        let wrong = |_| {
            Error::database(format!("the counter `{name}` in {namespace:?} does not hold a whole number"))
        };
        let value = counter.get_i64("value").map_err(wrong)?;
        let now = counter.get_datetime("at").map_err(wrong)?;
        Ok(Sequence { first: value - i64::from(count) + 1, count, now: Timestamp::from(*now) })
    }
}

async fn apply_each(call: &Call, plan: &apply::Plan) -> Result<Vec<Outcome>, Failure> {
    let sessions = call.connector.numbered_sessions(&call.lease).await?;
    plan.run(call, sessions, &call.connector.env().fail).await
}

async fn apply_all(call: &Call, plan: &apply::Plan) -> Result<Vec<Outcome>, Failure> {
    if call.connector.capabilities(&call.lease).await?.transactions {
        return transaction::run(plan, call, call.connector.env()).await;
    }
    Err(Failure::Ours(Error::validation(format!(
        "{} is a standalone server, which has no transactions; use a replica set, or a batch in which each operation stands for itself",
        call.connector.place()
    ))))
}

async fn find_ids(call: &Call, namespace: &Namespace, ids: &[Bson]) -> Result<Vec<RawDocumentBuf>, Failure> {
    let filter = match ids {
        [one] => doc! { "_id": { "$eq": one } },
        many => doc! { "_id": { "$in": many } },
    };
    let mut session = call.session().await?;
    let mut cursor =
        call.lease.collection(namespace).clone_with_type().find(filter).session(&mut session).await?;
    Ok(cursor.stream(&mut session).try_collect().await?)
}

async fn next_numbers(
    call: &Call,
    namespace: &Namespace,
    name: &str,
    count: u32,
    concern: Concern,
) -> Result<Document, Failure> {
    let value = doc! { "$add": [{ "$toLong": { "$ifNull": ["$value", -1_i64] } }, i64::from(count)] };
    let command = doc! {
        "findAndModify": &*namespace.collection,
        "query": { "_id": name },
        "update": [{ "$set": { "value": value, "at": "$$NOW" } }],
        "upsert": true,
        "new": true,
    };
    let command = RawDocumentBuf::try_from(&command)?;
    let database = call.lease.client.database(&namespace.database);
    let sessions = call.connector.numbered_sessions(&call.lease).await?;
    let mut attempt = 1;
    loop {
        match command::send(call, sessions, &database, command.clone(), concern).await {
            Ok(reply) => {
                let counter = reply.get_document("value").cloned();
                return counter.map_err(|_| {
                    Error::database(format!("the server gave out no numbers of the sequence `{name}`")).into()
                });
            }
            // Two callers found no counter; the one that came second meets the document of the first.
            Err(Failure::Driver { error, .. }) if is_duplicate(&error) && attempt < SEQUENCE_ATTEMPTS => {
                attempt += 1
            }
            Err(failure) => return Err(failure),
        }
    }
}

impl fmt::Debug for MongoDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoDocuments").field("at", &self.connector.place()).finish_non_exhaustive()
    }
}

#[async_trait]
impl DocumentStore for MongoDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        let asked = self
            .connector
            .repeat(|call: Call| async move { call.connector.capabilities(&call.lease).await })
            .await;
        asked.map_err(|f| self.connector.explain(f, "asking for capabilities"))
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let plan = apply::Plan::new(batch.operations)?;
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let atomicity = batch.atomicity;
        let applied = self.connector.once(move |call| async move {
            let work = async {
                match atomicity {
                    Atomicity::Each => apply_each(&call, &plan).await,
                    Atomicity::All => apply_all(&call, &plan).await,
                }
            };
            abandoned::watched(&call, work).await
        });
        applied.await.map_err(|f| self.connector.explain_write(f))
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.take_numbers(namespace, name, count, Concern::Durable).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        // Rows that the same server gets are journaled by a majority with these numbers, which came before
        // them. If another one gets them, or they are lost, numbers may be given out twice; then they meet at
        // the unique index, and the writer that meets them raises the counter.
        let sequence = self.take_numbers(namespace, name, count, Concern::OnItsWay).await?;
        self.connector.env().fail.hit("mongo.after_sequence")?;
        let outcomes = self.apply(build(sequence)?).await?;
        Ok(Numbered { sequence, outcomes })
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        let mut found = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(found);
        }
        for ids in ids.chunks(IDS_PER_FIND) {
            let (namespace, ids) = (namespace.clone(), Arc::<[Bson]>::from(ids));
            let part = self.connector.repeat(move |call: Call| {
                let (namespace, ids) = (namespace.clone(), Arc::clone(&ids));
                async move { find_ids(&call, &namespace, &ids).await }
            });
            found.extend(part.await.map_err(|f| self.connector.explain(f, "reading documents"))?);
        }
        Ok(found)
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        scan::stream(Arc::clone(&self.connector), namespace.clone(), scan)
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let (namespace, filter) = (namespace.clone(), Arc::new(filter));
        let counted = self.connector.repeat(move |call: Call| {
            let (namespace, filter) = (namespace.clone(), Arc::clone(&filter));
            async move { scan::count(&call, &namespace, &filter, at_most).await }
        });
        counted.await.map_err(|f| self.connector.explain(f, "counting documents"))
    }

    async fn now(&self) -> Result<Timestamp> {
        let hello = self.connector.repeat(|call: Call| async move { call.lease.hello().await }).await;
        let hello = hello.map_err(|f| self.connector.explain(f, "asking for the time"))?;
        let at = hello
            .get_datetime("localTime")
            .map_err(|_| Error::database("the server does not report its time"))?;
        Ok(Timestamp::from(*at))
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        let of = namespace.clone();
        let (namespace, indexes) = (namespace.clone(), Arc::<[Index]>::from(indexes));
        let ensured = self.connector.repeat(move |call: Call| {
            let (namespace, indexes) = (namespace.clone(), Arc::clone(&indexes));
            async move { ensure::ensure(&call, &namespace, &indexes).await }
        });
        let ensured = ensured.await;
        self.connector.known_indexes().forget(&of);
        ensured.map_err(|f| self.connector.explain(f, "creating indexes"))
    }

    async fn deployment(&self) -> Result<Deployment> {
        let asked =
            self.connector.repeat(|call: Call| async move { look::deployment(&call.lease).await }).await;
        asked.map_err(|f| self.connector.explain(f, "asking which deployment it is"))
    }

    async fn databases(&self) -> Result<Vec<String>> {
        let listed = self.connector.repeat(|call: Call| async move { look::databases(&call.lease).await });
        listed.await.map_err(|f| self.connector.explain(f, "listing databases"))
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        let database = Arc::<str>::from(database);
        let listed = self.connector.repeat(move |call: Call| {
            let database = Arc::clone(&database);
            async move { look::collections(&call.lease, &database).await }
        });
        listed.await.map_err(|f| self.connector.explain(f, "listing collections"))
    }

    async fn rights(&self, database: &str) -> Result<Rights> {
        let database = Arc::<str>::from(database);
        let asked = self.connector.repeat(move |call: Call| {
            let database = Arc::clone(&database);
            async move { rights::rights(&call, &database).await }
        });
        asked.await.map_err(|f| self.connector.explain(f, "asking for the user's rights"))
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.connector.limit())
    }

    async fn close(&self) -> Result<()> {
        self.connector.close().await;
        Ok(())
    }
}
