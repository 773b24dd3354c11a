//! A collection that is backed up while it is written to, in whatever number of versions.
//!
//! By hand with as many as one likes; what it took is printed. `standalone_local` builds on MongoDB what was backed up of
//! an embedded store, the others the other way round:
//!
//! ```text
//! CHRONOS_BACKUP_VERSIONS=1000000 cargo test --release -p chronos-db --test it -- --nocapture backups_large::standalone_local
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bson::Document;
use chronos_db::documents::{Direction, Scan};
use chronos_db::{Collection, ItemId, Json, json};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use test_support::{CallKind, Counting, objects};

use super::backups::{OF_THE_PLACE, totals};
use super::pairing::{Kind, Pairing, Store, TIMEOUT, namespace, on_durable_pairings};

on_durable_pairings!(
    a_backup_under_writes_restored_on_another_backend_is_equal,
    a_backup_and_its_restore_ask_the_store_for_many_versions_at_once,
);

/// Writes that are under way at once.
const AT_ONCE: usize = 32;
/// Of so many versions one is the first of its item.
const CREATES: u64 = 3;

fn config() -> Json {
    json!({"collectionMaps": {"users": {"indexedProps": ["n", "group"]}}})
}

/// Makes so many versions: new items, most of which are changed later and some deleted.
async fn write(users: &Collection, versions: u64) {
    let documents = |n: u64| json!({"n": n, "group": n % 7, "name": format!("item {n}"), "price": 0.5});
    let creates = versions.div_ceil(CREATES);
    let created = futures::stream::iter(0..creates)
        .map(|n| async move { users.create(documents(n)).await.unwrap().id })
        .buffer_unordered(AT_ONCE);
    // The other versions of an item follow its first one.
    let written = created.enumerate().map(|(at, id)| async move {
        let left = versions - creates;
        let mine = left / creates + u64::from((at as u64) < left % creates);
        later(users, &id, mine).await;
    });
    written.buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn later(users: &Collection, id: &ItemId, versions: u64) {
    for n in 0..versions {
        if n == 1 {
            users.delete(id).reason("gone").await.unwrap();
        } else {
            users.update(id, json!({"n": n, "changed": true})).await.unwrap();
        }
    }
}

/// The rows of a collection in the order of their numbers, without what follows from where they are.
fn log(store: &Store, collection: &Collection) -> BoxStream<'static, Document> {
    let scan = Scan { order: vec![("cv".into(), Direction::Ascending)], ..Scan::default() };
    let rows = store.documents().scan(&namespace(collection, "ver"), scan);
    rows.map(|row| {
        let mut row = row.unwrap();
        OF_THE_PLACE.iter().for_each(|field| drop(row.remove(field)));
        row
    })
    .boxed()
}

async fn assert_same_log(from: (&Store, &Collection), to: (&Store, &Collection)) -> u64 {
    let (mut was, mut is, mut count) = (log(from.0, from.1), log(to.0, to.1), 0);
    loop {
        match (was.next().await, is.next().await) {
            (None, None) => return count,
            (was, is) => assert_eq!(is, was, "row {count}"),
        }
        count += 1;
    }
}

/// The most that this process ever had in memory, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[allow(clippy::print_stdout, reason = "what a run by hand took")]
async fn a_backup_under_writes_restored_on_another_backend_is_equal(p: &Pairing) {
    let versions: u64 = std::env::var("CHRONOS_BACKUP_VERSIONS").map_or(300, |given| given.parse().unwrap());
    let other = Pairing::new(match p.kind {
        Kind::EmbeddedLocal => Kind::StandaloneLocal,
        _ => Kind::EmbeddedLocal,
    });
    // Payloads in memory, up to their bound, are not what a backup takes.
    let open = |p: &Pairing| p.opening().with(&config()).without_cache().open();
    let (from, to) = (open(&other), open(p));
    let (users, grown) = (from.users(), to.users());
    let folder = other.folder().join("away");
    let began = Instant::now();
    let tell = |what: &str| println!("{what}: {:.1} s, peak {} MiB", began.elapsed().as_secs_f64(), peak());
    write(&users, versions / 2).await;
    tell("half is written");
    let is_over = AtomicBool::new(false);
    let writes = async {
        write(&users, versions - versions / 2).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let backups = async {
        let mut reached = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            reached.push(users.backup().to_folder(&folder).await.unwrap().cv);
        }
        reached
    };
    let ((), reached) = futures::future::join(writes, backups).await;
    let last = users.backup().to_folder(&folder).await.unwrap();
    assert_eq!(last.cv, users.stable_cv().await.unwrap());
    assert!(reached.first().is_some_and(|first| *first < last.cv), "{reached:?}");
    tell(&format!("{} is backed up in {} parts", last.cv + 1, reached.len() + 1));
    let restored = grown.restore_backup().from_folder(&folder).await.unwrap();
    assert_eq!((restored.versions, restored.cv), (versions, last.cv));
    tell("restored");
    assert!(assert_same_log((&from, &users), (&to, &grown)).await >= versions);
    // Counted anew: nobody followed the log of the copy.
    assert_eq!(totals(&grown).await, totals(&users).await);
    assert_eq!(grown.flush(TIMEOUT).await.unwrap(), 0);
    tell("compared");
    other.finish().await;
    tell("verified");
}

/// How many calls there were since it was asked last.
fn calls<C: CallKind>(counting: &Counting<C>) -> u64 {
    counting.take().iter().map(|(_, calls)| calls).sum()
}

async fn a_backup_and_its_restore_ask_the_store_for_many_versions_at_once(p: &Pairing) {
    let (on_documents, on_objects) = (Counting::new(), Counting::new());
    let opening = p.opening().with(&config()).without_cache();
    let store = opening.documents(&on_documents).objects(&on_objects).open();
    let (users, copy) = (store.users(), store.collection("copy"));
    let folder = p.folder().join("away");
    for _ in 0..2 {
        write(&users, 600).await;
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        on_documents.take();
        on_objects.take();
        let done = users.backup().to_folder(&folder).await.unwrap();
        assert_eq!(done.versions, 600);
        // An object each, but that a deletion has the one before, and some pieces of the log.
        assert!(on_objects.count(objects::Call::Get) <= 600, "{:?}", on_objects.all());
        let asked = on_documents.all();
        assert!(calls(&on_documents) <= 40, "{asked:?}");
    }
    on_documents.take();
    on_objects.take();
    assert_eq!(copy.restore_backup().of(&users).from_folder(&folder).await.unwrap().versions, 1_200);
    assert!(on_objects.count(objects::Call::Put) <= 1_200, "{:?}", on_objects.all());
    let asked = on_documents.all();
    assert!(calls(&on_documents) <= 120, "{asked:?}");
}
