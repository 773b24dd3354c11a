//! The embedded store: the suite of the seam, and what only a file can do.

use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Filter, Guard, Index, Namespace, Numbered,
    Outcome, Scan, Sequence, Write,
};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Env, Error, ErrorKind, Result, Timestamp};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

/// A store whose folder goes with it.
#[derive(Debug)]
struct Kept {
    store: EmbeddedDocuments,
    _folder: TempDir,
}

#[async_trait]
impl DocumentStore for Kept {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.store.capabilities().await
    }
    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.store.apply(batch).await
    }
    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.store.sequence(namespace, name, count).await
    }
    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.store.sequence_then(namespace, name, count, build).await
    }
    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.store.get_stored(namespace, ids).await
    }
    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.store.scan_stored(namespace, scan)
    }
    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        self.store.count(namespace, filter, at_most).await
    }
    async fn now(&self) -> Result<Timestamp> {
        self.store.now().await
    }
    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.store.ensure(namespace, indexes).await
    }
    async fn deployment(&self) -> Result<Deployment> {
        self.store.deployment().await
    }
    async fn databases(&self) -> Result<Vec<String>> {
        self.store.databases().await
    }
    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.store.collections(database).await
    }
    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}

async fn in_a_folder() -> Arc<dyn DocumentStore> {
    let folder = tempfile::tempdir().unwrap();
    Arc::new(Kept { store: open(&folder), _folder: folder })
}

async fn in_memory() -> Arc<dyn DocumentStore> {
    Arc::new(EmbeddedDocuments::open(":memory:", Env::default()).unwrap())
}

chronos_db::documents_suite!(file, in_a_folder());
chronos_db::documents_suite!(memory, in_memory());

fn open(folder: &TempDir) -> EmbeddedDocuments {
    EmbeddedDocuments::open(folder.path(), Env::default()).unwrap()
}

fn things() -> Namespace {
    Namespace::new("database", "things")
}

async fn insert(store: &EmbeddedDocuments, document: Document) -> Result<Outcome> {
    let mut batch = Batch::new();
    batch.push(&things(), Write::insert(document));
    Ok(store.apply(batch).await?.remove(0))
}

async fn count(store: &EmbeddedDocuments) -> usize {
    store.scan(&things(), Scan::default()).count().await
}

#[tokio::test]
async fn the_whole_suite_runs_as_one_call() {
    chronos_db::testing::documents::run_all(in_memory).await;
}

#[tokio::test]
async fn opening_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er");
    let store = EmbeddedDocuments::open(&path, Env::default()).unwrap();
    assert!(!folder.path().join("deep").exists());
    assert_eq!(count(&store).await, 0);
    assert!(path.join("chronos.db").is_file());
}

#[tokio::test]
async fn a_path_may_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/my.db");
    let store = EmbeddedDocuments::open(&path, Env::default()).unwrap();
    insert(&store, doc! { "_id": 1 }).await.unwrap();
    assert!(path.is_file());
}

#[tokio::test]
async fn reopening_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store.ensure(&things(), &[Index::on("by_n", &["n"]).unique()]).await.unwrap();
    insert(&store, doc! { "_id": 1, "n": 1 }).await.unwrap();
    store.sequence(&things(), "cv", 5).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder);
    assert_eq!(store.get(&things(), vec![1.into()]).await.unwrap(), [doc! { "_id": 1, "n": 1 }]);
    assert_eq!(
        insert(&store, doc! { "_id": 2, "n": 1 }).await.unwrap(),
        Outcome::Conflict { index: Some("by_n".to_owned()) }
    );
    assert_eq!(store.sequence(&things(), "cv", 1).await.unwrap().first, 5);
}

#[tokio::test]
async fn closing_does_what_is_queued_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    insert(&store, doc! { "_id": -1 }).await.unwrap();
    // The writer is held in the middle of a request, so that everything else is in its queue when the store
    // is closed.
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let build: BuildBatch = Box::new(move |_| {
        held.recv().unwrap();
        Ok(Batch::new())
    });
    let counter = Namespace::new("database", "counter");
    let mut holding = Box::pin(store.sequence_then(&counter, "cv", 1, build));
    assert!(futures::poll!(&mut holding).is_pending());
    let mut writes: Vec<_> = (0..200).map(|n| Box::pin(insert(&store, doc! { "_id": n }))).collect();
    for write in &mut writes {
        assert!(futures::poll!(write).is_pending());
    }
    let mut closing = Box::pin(store.close());
    assert!(futures::poll!(&mut closing).is_pending());
    assert!(insert(&store, doc! { "_id": 200 }).await.is_err(), "what comes later is refused");
    let_go.send(()).unwrap();
    holding.await.unwrap();
    for write in writes {
        assert_eq!(write.await.unwrap(), Outcome::Applied);
    }
    closing.await.unwrap();
    assert_eq!(count(&open(&folder)).await, 201);
}

#[tokio::test]
async fn two_memories_are_two_stores() {
    let (one, two) = (in_memory().await, in_memory().await);
    let mut batch = Batch::new();
    batch.push(&things(), Write::insert(doc! { "_id": 1 }));
    one.apply(batch).await.unwrap();
    assert_eq!(two.get(&things(), vec![1.into()]).await.unwrap(), Vec::<Document>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_on_one_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..4).map(|_| Arc::new(open(&folder))).collect();
    let mut tasks = Vec::new();
    for (at, store) in (0_i64..).zip(&stores) {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            for n in 0..25_i64 {
                let given = store.sequence(&Namespace::new("database", "counter"), "cv", 1).await.unwrap();
                numbers.push(given.first);
                assert_eq!(
                    insert(&store, doc! { "_id": given.first, "key": given.first, "store": at })
                        .await
                        .unwrap(),
                    Outcome::Applied
                );
                if n == at * 5 {
                    // Each store makes another index, of which the others must take notice.
                    let index = Index::on(&format!("by_{at}"), &["key", &format!("path{at}")]).unique();
                    store.ensure(&things(), &[index]).await.unwrap();
                }
            }
            numbers
        }));
    }
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<i64>>());
    for store in &stores {
        assert_eq!(count(store).await, 100);
        let refused = insert(store, doc! { "_id": "new", "key": 7 }).await.unwrap();
        assert!(matches!(refused, Outcome::Conflict { index: Some(name) } if name.starts_with("by_")));
    }
}

/// A snapshot that stands still keeps everything written after it in the log of changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_nobody_reads_on_keeps_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let put = async |round: i32| {
        let mut batch = Batch::new();
        for n in 0..1000 {
            batch.push(
                &things(),
                Write::put(doc! { "_id": n, "round": round, "text": "x".repeat(1000) }, Guard::Any),
            );
        }
        store.apply(batch).await.unwrap();
    };
    put(0).await;
    let mut stream = store.scan(&things(), Scan::default());
    assert_eq!(stream.next().await.unwrap().unwrap().get_i32("round").unwrap(), 0);
    for round in 1..60 {
        put(round).await;
    }
    let log = std::fs::read_dir(folder.path())
        .unwrap()
        .map(Result::unwrap)
        .find(|file| file.file_name().to_string_lossy().ends_with("-wal"));
    let bytes = log.unwrap().metadata().unwrap().len();
    assert!(bytes < 40_000_000, "{bytes} bytes wait to be taken over into the file");
    // A rebuilt table is not a hindrance either.
    store.ensure(&things(), &[Index::on("by_round", &["round"])]).await.unwrap();
    let rest: Vec<Document> = stream.try_collect().await.unwrap();
    assert_eq!(rest.len(), 999);
    assert_eq!(rest.last().unwrap().get_i32("round").unwrap(), 59);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chronos.db");
    std::fs::write(&path, "this is a text, and a long one at that. ".repeat(500)).unwrap();
    let failed = insert(&open(&folder), doc! { "_id": 1 }).await.unwrap_err();
    assert_eq!((failed.kind(), failed.is_retryable()), (ErrorKind::Database, false));
    assert!(failed.to_string().contains(&folder.path().display().to_string()), "{failed}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is a text"), "it was left alone");
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.sqlite");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        .unwrap();
    let store = EmbeddedDocuments::open(&path, Env::default()).unwrap();
    let failed = insert(&store, doc! { "_id": 1 }).await.unwrap_err();
    assert!(failed.to_string().contains("another program"), "{failed}");
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for n in 0..300 {
        insert(&store, doc! { "_id": n, "text": "x".repeat(300) }).await.unwrap();
    }
    store.close().await.unwrap();
    let path = folder.path().join("chronos.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let pages = 4096 * 4;
    bytes[pages..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let store = open(&folder);
    let failed = store.scan(&things(), Scan::default()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Database);
    assert!(failed.to_string().contains("damaged"), "{failed}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let store = EmbeddedDocuments::open(file.join("below"), Env::default()).unwrap();
    let failed = insert(&store, doc! { "_id": 1 }).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Database);
    assert!(failed.to_string().contains("below"), "{failed}");
    assert_eq!(EmbeddedDocuments::open("", Env::default()).unwrap_err().kind(), ErrorKind::Validation);
}

fn failing(folder: &TempDir) -> (EmbeddedDocuments, FailPoints) {
    let fail = FailPoints::armable();
    let env = Env { fail: fail.clone(), ..Env::default() };
    (EmbeddedDocuments::open(folder.path(), env).unwrap(), fail)
}

#[tokio::test]
async fn what_fails_before_the_commit_left_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fail) = failing(&folder);
    fail.arm("embedded.before_commit", FailAction::Error(ErrorKind::Database), 0, 1);
    assert!(insert(&store, doc! { "_id": 1 }).await.is_err());
    assert_eq!(count(&store).await, 0);
    assert_eq!(insert(&store, doc! { "_id": 1 }).await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn what_fails_after_the_commit_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (store, fail) = failing(&folder);
    fail.arm("embedded.after_commit", FailAction::Error(ErrorKind::Database), 0, 1);
    assert!(insert(&store, doc! { "_id": 1 }).await.is_err());
    assert_eq!(count(&store).await, 1);
    assert_eq!(insert(&store, doc! { "_id": 2 }).await.unwrap(), Outcome::Applied);
}

#[tokio::test]
async fn a_panic_while_building_ends_only_that_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let build: BuildBatch = Box::new(|_| panic!("a bug of the caller"));
    let failed: Error = store.sequence_then(&things(), "cv", 1, build).await.unwrap_err();
    assert!(failed.to_string().contains("panicked"), "{failed}");
    assert_eq!(store.sequence(&things(), "cv", 1).await.unwrap().first, 0);
}

/// SQLite moves rows between pages, and leaves them in the unused room of the old ones.
#[tokio::test]
async fn a_scrub_leaves_no_byte_of_what_was_removed_wherever_it_was_moved() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let apply = async |write: Write| {
        let mut batch = Batch::new();
        batch.push(&things(), write);
        store.apply(batch).await.unwrap();
    };
    let document = |n: i32, length: i32| {
        let word = if n % 3 == 0 { "kept" } else { "secret" };
        doc! { "_id": n, "words": format!("{word}-{n:04}. ").repeat(usize::try_from(length).unwrap()) }
    };
    for n in 0..600 {
        apply(Write::insert(document(n, 5 + n * 7 % 97))).await;
    }
    for n in 0..600 {
        apply(Write::put(document(n * 389 % 600, 5 + n * 31 % 97), Guard::Any)).await;
    }
    for n in (0..600).filter(|n| n % 3 != 0) {
        apply(Write::Delete { id: n.into(), guard: Guard::Any }).await;
    }
    store.scrub("db").await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"secret-"), "{}", path.display());
    }
    assert_eq!(count(&store).await, 200);
}

#[tokio::test]
async fn a_purge_leaves_no_byte_of_what_another_store_on_the_file_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(&folder), open(&folder));
    insert(&one, doc! { "_id": 1, "kept": true }).await.unwrap();
    one.purge("db").await.unwrap();
    insert(&other, doc! { "_id": 2, "word": "secret-2f6b" }).await.unwrap();
    let mut batch = Batch::new();
    batch.push(&things(), Write::Delete { id: 2.into(), guard: Guard::Any });
    other.apply(batch).await.unwrap();
    one.purge("db").await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"secret-2f6b"), "{}", path.display());
    }
    assert_eq!(count(&one).await, 1);
}
