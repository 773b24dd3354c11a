//! The seam itself: [`DocumentStore`].

use std::fmt;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::deployment::Deployment;
use super::filter::Filter;
use super::index::Index;
use super::namespace::Namespace;
use super::raw_bson;
use super::scan::Scan;
use super::write::{Batch, BuildBatch, Numbered, Outcome, Sequence};
use crate::{Result, Timestamp};

/// What the store behind a [`DocumentStore`] can do; detected once per client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Atomicity::All`](super::Atomicity::All) over several documents and collections.
    pub transactions: bool,
    /// Whether [`DocumentStore::sequence_then`] is one transaction.
    pub atomic_sequence: bool,
}

/// What the user of a [`DocumentStore`] may do in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read documents.
    pub read: bool,
    /// Add, change and remove documents.
    pub write: bool,
    /// Make indexes, without which nothing is written.
    pub index: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, index: true };
}

/// A document store: one client, all its databases.
///
/// Databases and collections come into being on their first write. Implementations are cheap to share behind
/// an [`Arc`](std::sync::Arc).
#[async_trait]
pub trait DocumentStore: Send + Sync + fmt::Debug {
    /// Returns what this store can do. The first call may ask the server.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Applies the writes; one [`Outcome`] per operation, in their order.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store failed; writes may then have taken place, and the caller finds out by the
    /// `_id`s it gave. An outcome is never an error.
    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>>;

    /// Gives out the next `count` numbers of the sequence `name` kept in `namespace`, as `{_id: name, value:
    /// last given out}`; the first ever is 0. No two callers get the same number. Numbers of a caller that
    /// dies are lost.
    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence>;

    /// Gives out numbers as [`sequence`](Self::sequence) does, then [applies](Self::apply) what `build` makes
    /// of them: in one transaction where [`Capabilities::atomic_sequence`] says so, one after the other
    /// elsewhere.
    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered>;

    /// Returns the documents with these `_id`s as they are stored, in any order; absent ones are left out.
    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>>;

    /// Returns what [`get_stored`](Self::get_stored) returns, decoded.
    async fn get(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<Document>> {
        self.get_stored(namespace, ids).await?.iter().map(|stored| raw_bson::decode(stored)).collect()
    }

    /// Reads documents, as they are stored, as a stream of pages that holds at most some hundreds of them in
    /// memory, and between two pages nothing of the store: a reader may take its time, and ask the same
    /// store meanwhile. Sees everything that was durable when it began, and what does not change while it
    /// goes on exactly once; what comes, goes or changes later may or may not be seen, or be seen as it is
    /// then.
    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>>;

    /// Returns what [`scan_stored`](Self::scan_stored) returns, decoded.
    fn scan(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<Document>> {
        self.scan_stored(namespace, scan).map(|found| raw_bson::decode(&found?)).boxed()
    }

    /// Returns how many documents match, `at_most` at most. Implementations count by an index where one
    /// serves the filter, so that nothing travels.
    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let scan = Scan { filter, limit: Some(at_most), ..Scan::default() };
        self.scan_stored(namespace, scan).try_fold(0, |n, _| async move { Ok(n + 1) }).await
    }

    /// Returns the store's time.
    async fn now(&self) -> Result<Timestamp>;

    /// Makes sure that the indexes exist (and with them the collection). An existing index that is like the
    /// wanted one serves, whatever its name.
    ///
    /// # Errors
    /// `TXN_ERROR` if existing documents violate a unique index: the message names it. `ROUTE_MISMATCH` if an
    /// index stands in the way that has the wanted one's name or keys and is another one, such as one that is
    /// not unique: the message says how to mend it.
    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()>;

    /// Returns which deployment this client reaches, so that two connection strings that lead to one are
    /// known to. Creates nothing.
    async fn deployment(&self) -> Result<Deployment>;

    /// Returns the names of the databases that hold collections and that this user may see, in any order; those
    /// of the server's own are left out.
    async fn databases(&self) -> Result<Vec<String>>;

    /// Returns the names of a database's collections, in any order.
    async fn collections(&self, database: &str) -> Result<Vec<String>>;

    /// Returns what this user may do in the database. A store without users allows everything.
    async fn rights(&self, _database: &str) -> Result<Rights> {
        Ok(Rights::ALL)
    }

    /// Sees to it that of documents that were removed or replaced before this call no byte is left in the
    /// files of the store, as far as the store has that in its hands: where it is a server's, what its files
    /// keep for how long is the server's business, and nothing happens.
    ///
    /// # Errors
    /// `TXN_ERROR`, retryable, if a reader still holds what was there before.
    async fn purge(&self, _database: &str) -> Result<()> {
        Ok(())
    }

    /// As [`purge`](Self::purge), and also of what the store has copied by itself: what it once moved from one place of its
    /// file to another may still lie at the old one. The file may have to be written anew, so this is for what
    /// is certified to be nowhere.
    ///
    /// # Errors
    /// As [`purge`](Self::purge), and if there is no room for a second file.
    async fn scrub(&self, database: &str) -> Result<()> {
        self.purge(database).await
    }

    /// Returns how long a call may take; none where nothing has to be waited for. A caller that makes several
    /// calls for one of its own gives them this time together, with [`within`](super::within).
    fn limit(&self) -> Option<std::time::Duration> {
        None
    }

    /// Ends the client after what is in flight. Later calls fail.
    async fn close(&self) -> Result<()>;
}
