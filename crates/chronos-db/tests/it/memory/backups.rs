//! Backing up and restoring collections of whatever length.

#![allow(clippy::print_stdout, reason = "a child says its peak")]

use std::path::Path;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::config::{Config, Database};
use chronos_db::documents::{Batch, DocumentStore, Guard, Namespace, Scan, Write};
use chronos_db::{Chronos, Collection, Route, json};
use futures::TryStreamExt as _;

use super::{peak, run};

/// Rows that are put at once.
const AT_ONCE: u64 = 1_000;

fn open(folder: &Path) -> (Chronos, Collection, Collection) {
    let uri = format!("embedded:{}", folder.join("documents").display());
    let config =
        Config::builder().connection("here", uri).database(Database::runtime("default", "here", "chronos"));
    let chronos = Chronos::builder(config.build().unwrap()).cache_bytes(0).open().unwrap();
    let named = |name: &str| chronos.with(Route::runtime().tenant("default").collection(name)).unwrap();
    let (files, copy) = (named("files"), named("copy"));
    (chronos, files, copy)
}

async fn stored(documents: &dyn DocumentStore, suffix: &str) -> Vec<Document> {
    let namespace = Namespace::new("chronos", format!("files_{suffix}"));
    documents.scan(&namespace, Scan::default()).try_collect().await.unwrap()
}

async fn apply(documents: &dyn DocumentStore, suffix: &str, writes: Vec<Write>) {
    let mut batch = Batch::new();
    for write in writes {
        batch.push(&Namespace::new("chronos", format!("files_{suffix}")), write);
    }
    documents.apply(batch).await.unwrap();
}

/// A collection of so many tiny versions, each of an item of its own: the rows of one that was written, again and
/// again. Its heads nobody reads.
pub(super) async fn rows(folder: &Path, count: u64) {
    let (chronos, files, _) = open(folder);
    files.create(json!({ "n": 1 })).await.unwrap();
    let documents = chronos.documents("here").unwrap();
    let row = stored(&*documents, "ver").await.remove(0);
    let mut cvs = 1..count;
    loop {
        let writes: Vec<Write> = (&mut cvs)
            .take(usize::try_from(AT_ONCE).unwrap())
            .map(|cv| {
                let mut row = row.clone();
                row.insert("_id", ObjectId::new());
                row.insert("itemId", ObjectId::new());
                row.insert("cv", i64::try_from(cv).unwrap());
                Write::insert(row)
            })
            .collect();
        if writes.is_empty() {
            break;
        }
        apply(&*documents, "ver", writes).await;
    }
    let mut counters = stored(&*documents, "counter").await;
    counters.retain(|counter| counter.contains_key("value"));
    let last = Bson::Int64(i64::try_from(count - 1).unwrap());
    counters.iter_mut().for_each(|counter| drop(counter.insert("value", last.clone())));
    apply(
        &*documents,
        "counter",
        counters.into_iter().map(|counter| Write::put(counter, Guard::Any)).collect(),
    )
    .await;
    chronos.shutdown().await.unwrap();
}

pub(super) async fn backed_up(folder: &Path, count: u64) {
    let (chronos, files, _) = open(folder);
    let done = files.backup().to_folder(folder.join("away")).await.unwrap();
    assert_eq!((done.versions, done.damaged), (count, 0));
    println!("peak {}", peak());
    chronos.shutdown().await.unwrap();
}

pub(super) async fn restored(folder: &Path, count: u64) {
    let (chronos, files, copy) = open(folder);
    let restored = copy.restore_backup().of(&files).from_folder(folder.join("away")).await.unwrap();
    assert_eq!(restored.versions, count);
    println!("peak {}", peak());
    chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backup_and_its_restore_take_no_more_memory_the_longer_the_collection() {
    let dir = tempfile::tempdir().unwrap();
    // `CHRONOS_MEMORY_ROWS` for as many as anybody has.
    let count = std::env::var("CHRONOS_MEMORY_ROWS").map_or(20_000, |count| count.parse().unwrap());
    let mut peaks = Vec::new();
    for (name, count) in [("few", count / 100), ("many", count)] {
        let folder = dir.path().join(name);
        run("rows", &folder, count).await;
        peaks.push(run("backed_up", &folder, count).await.unwrap());
        peaks.push(run("restored", &folder, count).await.unwrap());
    }
    // SQLite keeps pages: of a reader 8 MiB, of the writer 32 MiB. Some files of a backup are 1 MiB each.
    assert!(peaks[2] < peaks[0] + 24 && peaks[3] < peaks[1] + 64, "{peaks:?} MiB with {count}");
    assert!(peaks.iter().all(|peak| *peak < 120), "{peaks:?} MiB with {count}");
}
