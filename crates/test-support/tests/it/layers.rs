use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf, doc, rawdoc};
use bytes::Bytes;
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Index, Namespace, Numbered, Outcome, Scan,
    Sequence,
};
use chronos_db::objects::{ObjectInfo, ObjectStorage, Put, PutOptions};
use chronos_db::{Error, ErrorKind, Result, Timestamp};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use test_support::{Counting, Delaying, Failing, Fault, MockClock, documents, objects};

/// The least object storage that remembers something.
#[derive(Debug, Default)]
struct Shelf(Mutex<BTreeMap<String, Bytes>>);

impl Shelf {
    fn infos(&self) -> Vec<ObjectInfo> {
        let shelf = self.0.lock();
        shelf
            .iter()
            .map(|(key, body)| ObjectInfo {
                key: key.clone(),
                size: body.len() as u64,
                modified: Timestamp::default(),
            })
            .collect()
    }
}

#[async_trait]
impl ObjectStorage for Shelf {
    async fn put(&self, key: &str, body: Bytes, _: PutOptions) -> Result<Put> {
        self.0.lock().insert(key.to_owned(), body);
        Ok(Put::Stored)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.0.lock().get(key).cloned())
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let within = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        Ok(self.0.lock().get(key).map(|body| body.slice(within)))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        Ok(self.infos().into_iter().find(|info| info.key == key))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.lock().remove(key);
        Ok(())
    }

    fn list(&self, _: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        stream::iter(self.infos().into_iter().map(Ok)).boxed()
    }

    async fn bucket_exists(&self) -> Result<bool> {
        Ok(true)
    }

    async fn create_bucket(&self) -> Result<()> {
        Ok(())
    }

    async fn presign_get(&self, _: &str, _: Duration) -> Result<String> {
        Err(Error::new(ErrorKind::PresignUnsupported, "a shelf signs nothing"))
    }
}

/// A document store that only remembers which `_id`s were applied.
#[derive(Debug, Default)]
struct Ledger(Mutex<Vec<Batch>>);

#[async_trait]
impl DocumentStore for Ledger {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities { transactions: false, atomic_sequence: false })
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let outcomes = vec![Outcome::Applied; batch.operations.len()];
        self.0.lock().push(batch);
        Ok(outcomes)
    }

    async fn sequence(&self, _: &Namespace, _: &str, count: u32) -> Result<Sequence> {
        Ok(Sequence { first: 0, count, now: Timestamp::default() })
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        let sequence = self.sequence(namespace, name, count).await?;
        Ok(Numbered { sequence, outcomes: self.apply(build(sequence)?).await? })
    }

    async fn get_stored(&self, _: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        Ok(ids.into_iter().map(|id| RawDocumentBuf::try_from(doc! {"_id": id}).unwrap()).collect())
    }

    fn scan_stored(&self, _: &Namespace, _: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        stream::iter([Ok(rawdoc! {"_id": 1}), Ok(rawdoc! {"_id": 2})]).boxed()
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(Timestamp::default())
    }

    async fn ensure(&self, _: &Namespace, _: &[Index]) -> Result<()> {
        Ok(())
    }

    async fn deployment(&self) -> Result<Deployment> {
        Ok(Deployment::of(["ledger".to_owned()]))
    }

    async fn databases(&self) -> Result<Vec<String>> {
        Ok(vec!["world".to_owned()])
    }

    async fn collections(&self, _: &str) -> Result<Vec<String>> {
        Ok(vec!["things".to_owned()])
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn body() -> Bytes {
    Bytes::from_static(b"{}")
}

#[tokio::test]
async fn object_calls_are_counted_by_kind() {
    let counting = Counting::new();
    let store = objects::decorate(Arc::new(Shelf::default()), counting.clone());
    store.put("a", body(), PutOptions::default()).await.unwrap();
    store.put("b", body(), PutOptions::default()).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), Some(body()));
    assert_eq!(store.list("").count().await, 2);
    assert!(store.presign_get("a", Duration::from_secs(1)).await.is_err());
    use objects::Call::{Get, Head, List, PresignGet, Put};
    assert_eq!(counting.take(), [(Put, 2), (Get, 1), (List, 1), (PresignGet, 1)]);
    store.head("a").await.unwrap();
    assert_eq!(counting.all(), [(Head, 1)]);
    assert_eq!(counting.count(Put), 0);
}

#[tokio::test]
async fn document_calls_are_counted_by_kind() {
    let counting = Counting::new();
    let store = documents::decorate(Arc::new(Ledger::default()), counting.clone());
    let namespace = Namespace::new("db", "c");
    store.capabilities().await.unwrap();
    store.apply(Batch::new()).await.unwrap();
    store.sequence(&namespace, "cv", 1).await.unwrap();
    store.sequence_then(&namespace, "cv", 1, Box::new(|_| Ok(Batch::new()))).await.unwrap();
    store.get(&namespace, vec![Bson::Int32(1)]).await.unwrap();
    assert_eq!(store.scan(&namespace, Scan::default()).count().await, 2);
    store.now().await.unwrap();
    store.ensure(&namespace, &[]).await.unwrap();
    store.close().await.unwrap();
    use documents::Call::{
        Apply, Capabilities, Close, Ensure, Get, Now, Scan as Scanned, Sequence, SequenceThen,
    };
    let once =
        [Capabilities, Apply, Sequence, SequenceThen, Get, Scanned, Now, Ensure, Close].map(|call| (call, 1));
    assert_eq!(counting.all(), once);
}

#[tokio::test]
async fn a_call_that_fails_before_leaves_nothing_behind() {
    let (shelf, failing) = (Arc::new(Shelf::default()), Failing::new());
    let store = objects::decorate(shelf.clone(), failing.clone());
    failing.fail_nth(objects::Call::Put, 2, Fault::Before);
    store.put("a", body(), PutOptions::default()).await.unwrap();
    let error = store.put("b", body(), PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.is_retryable());
    store.put("c", body(), PutOptions::default()).await.unwrap();
    assert_eq!(shelf.0.lock().keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(failing.injected(), 1);
}

#[tokio::test]
async fn a_call_that_fails_after_took_place() {
    let (ledger, failing) = (Arc::new(Ledger::default()), Failing::new());
    let store = documents::decorate(ledger.clone(), failing.clone());
    failing.fail_nth(documents::Call::Apply, 1, Fault::After);
    let error = store.apply(Batch::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert!(error.is_retryable());
    assert_eq!(ledger.0.lock().len(), 1);
}

#[tokio::test]
async fn a_stream_that_fails_after_gives_its_items_first() {
    let failing = Failing::new();
    let store = documents::decorate(Arc::new(Ledger::default()), failing.clone());
    let namespace = Namespace::new("db", "c");
    failing.fail_nth(documents::Call::Scan, 1, Fault::After);
    failing.fail_nth(documents::Call::Scan, 2, Fault::Before);
    let mut after = store.scan(&namespace, Scan::default());
    assert_eq!(after.try_next().await.unwrap(), Some(doc! {"_id": 1}));
    assert_eq!(after.try_next().await.unwrap(), Some(doc! {"_id": 2}));
    assert!(after.try_next().await.is_err());
    assert!(store.scan(&namespace, Scan::default()).try_next().await.is_err());
    assert_eq!(store.scan(&namespace, Scan::default()).count().await, 2);
}

#[tokio::test]
async fn an_outage_fails_everything_until_it_ends() {
    let failing = Failing::new();
    let store = objects::decorate(Arc::new(Shelf::default()), failing.clone());
    failing.switch_all_on(Fault::Before);
    assert!(store.put("a", body(), PutOptions::default()).await.is_err());
    assert!(store.get("a").await.is_err());
    failing.switch_off();
    failing.switch_on(objects::Call::Put, Fault::Refused);
    assert!(!store.put("a", body(), PutOptions::default()).await.unwrap_err().is_retryable());
    assert_eq!(store.get("a").await.unwrap(), None);
    failing.switch_off();
    store.put("a", body(), PutOptions::default()).await.unwrap();
    assert_eq!(failing.injected(), 3);
}

#[tokio::test]
async fn a_delayed_call_reaches_the_store_when_its_time_has_come() {
    let (shelf, clock) = (Arc::new(Shelf::default()), Arc::new(MockClock::default()));
    let delaying = Delaying::new(clock.clone());
    let store = objects::decorate(shelf.clone(), delaying.clone());
    delaying.delay(objects::Call::Put, Duration::from_secs(5));
    delaying.delay(objects::Call::List, Duration::from_secs(9));
    let put = tokio::spawn({
        let store = store.clone();
        async move { store.put("a", body(), PutOptions::default()).await }
    });
    clock.sleepers(1).await;
    assert_eq!(store.get("a").await.unwrap(), None);
    clock.advance(Duration::from_secs(5));
    assert_eq!(put.await.unwrap().unwrap(), Put::Stored);
    let list = store.list("");
    clock.advance(Duration::from_secs(9));
    assert_eq!(list.count().await, 1);
}

#[tokio::test]
async fn layers_can_be_stacked() {
    let (counting, failing) = (Counting::new(), Failing::new());
    let store = objects::decorate(Arc::new(Shelf::default()), counting.clone());
    let store = objects::decorate(store, failing.clone());
    failing.fail_nth(objects::Call::Put, 1, Fault::Before);
    assert!(store.put("a", body(), PutOptions::default()).await.is_err());
    assert_eq!(counting.all(), []);
}
