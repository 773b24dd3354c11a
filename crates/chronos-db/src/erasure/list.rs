//! The certificates that are kept.

use bson::oid::ObjectId;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::certificate::Certificate;
use crate::action::Action;
use crate::documents::{Direction, Filter, Scan};
use crate::records::{Collection, ErasureRecord, erasures_of};
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result};

impl Collection {
    /// Lists the certificates of erasures in this collection, in the order in which they were begun.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// let id = users.create(chronos_db::json!({"email": "ada@example.org"})).await?.id;
    /// let certificate = users.erase(&id).await?;
    /// assert_eq!(users.certificates().await?, [certificate]);
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub fn certificates(&self) -> ListCertificates {
        ListCertificates { collection: self.clone(), id: None, whole_database: false }
    }
}

/// Lists certificates; see [`Collection::certificates`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListCertificates {
    collection: Collection,
    id: Option<String>,
    whole_database: bool,
}

impl ListCertificates {
    /// Lists the one with this identifier alone.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Lists those of every collection in the database.
    pub fn of_every_collection(mut self) -> Self {
        self.whole_database = true;
        self
    }

    /// Streams them one by one, in bounded memory.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the identifier is not 24 hex digits.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Certificate>>> {
        let Self { collection, id, whole_database } = self;
        let mut filter = Filter::All;
        if !whole_database {
            filter = filter.and(Filter::eq("collection", collection.name()));
        }
        if let Some(id) = id {
            let id = ObjectId::parse_str(&id)
                .map_err(|_| Error::validation("the id of a certificate has 24 hex digits"))?;
            filter = filter.and(Filter::eq("_id", id));
        }
        let order = vec![("_id".to_owned(), Direction::Ascending)];
        let scan = Scan { filter: collection.scope().await?.narrow(filter), order, ..Scan::default() };
        let found = collection.workers.index.documents.scan(&erasures_of(collection.database()), scan);
        let certificates = found.try_filter_map(|stored| async move {
            // One whose erasure is not over certifies nothing yet.
            Ok(Certificate::of(&ErasureRecord::read(&stored)?))
        });
        Ok(certificates.boxed())
    }
}

impl Action for ListCertificates {
    type Output = Vec<Certificate>;

    fn observed(&self) -> Option<Observed> {
        Some(self.collection.observed(Operation::Certificates))
    }

    async fn run(self) -> Result<Vec<Certificate>> {
        let named = |error: Error| error.during("certificates");
        self.stream().await.map_err(named)?.try_collect().await.map_err(named)
    }
}

awaitable!(ListCertificates);
