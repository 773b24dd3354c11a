//! Records on a replica set whose members lag, freeze and undo what a majority never had.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use chronos_db::config::{Config, Database};
use chronos_db::documents::{Batch, Direction, Namespace, Scan, Write};
use chronos_db::{Chronos, Collection, ErrorKind, ItemId, Route, json};
use futures::TryStreamExt as _;
use test_support::{ReplicaSet, servers};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const DATABASE: &str = "app";

pub(crate) fn open(uri: &str, folder: &Path) -> (Chronos, Collection) {
    open_with(uri, folder, DATABASE, Duration::from_secs(30))
}

fn open_with(uri: &str, folder: &Path, database: &str, timeout: Duration) -> (Chronos, Collection) {
    let config = Config::builder()
        .connection("main", uri)
        .local_storage(folder.join("objects"))
        .database(Database::runtime("default", "main", database).bucket("app-objects"))
        .timeout(timeout);
    let chronos = Chronos::open(config.build().unwrap()).unwrap();
    let users = chronos.with(Route::runtime().tenant("default").collection("users")).unwrap();
    (chronos, users)
}

/// Writes as a process of its own would, which ends without a word when the test stops it.
struct Writer {
    env: Option<tokio::runtime::Runtime>,
    users: Collection,
    _chronos: Chronos,
}

impl Writer {
    fn start(uri: &str, folder: PathBuf) -> Self {
        Self::start_in(uri, folder, DATABASE)
    }

    fn start_in(uri: &str, folder: PathBuf, database: &str) -> Self {
        let env = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = env.enter();
        let (chronos, users) = open_with(uri, &folder, database, Duration::from_secs(30));
        Self { env: Some(env), users, _chronos: chronos }
    }

    /// Begins to write; whether and when it ends is the caller's business.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.env.as_ref().unwrap().spawn(work)
    }

    fn die(mut self) {
        self.env.take().unwrap().shutdown_background();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(env) = self.env.take() {
            env.shutdown_background();
        }
    }
}

/// The numbers of the rows that the member has, committed or not.
async fn rows(set: &ReplicaSet, member: usize) -> Vec<Document> {
    set.documents(member, DATABASE, "users_ver").await
}

async fn until_rows(set: &ReplicaSet, member: usize, count: usize) {
    let begun = Instant::now();
    while rows(set, member).await.len() < count {
        assert!(begun.elapsed() < TIMEOUT, "{count} rows never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn heads_follow_rows(set: &ReplicaSet) {
    let primary = set.primary().await;
    let rows = rows(set, primary).await;
    for head in set.documents(primary, DATABASE, "users_head").await {
        let named = rows.iter().any(|row| row.get("_id") == head.get("rowId"));
        assert!(named, "the head {head} is made from a row that does not exist");
    }
}

/// One set for both, since it takes seconds to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_takes_back_was_never_shown_nor_built_upon() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = ReplicaSet::start().await;
    let (chronos, users) = open(&set.uri(), folder.path());
    a_version_without_a_majority_is_nobodys_business(&mut set, &users, folder.path()).await;
    numbers_that_a_failover_took_back_hold_up_nobody(&mut set, &users, folder.path()).await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let found = users.verify().await.unwrap();
    assert!(found.is_clean(), "{:#}", found.to_json());
    heads_follow_rows(&set).await;
    chronos.shutdown().await.unwrap();
}

/// On the set that the services have: its members stay up, and its elections take as long as usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_lag_and_elect_another_take_back_only_what_was_not_acknowledged() {
    let (folder, set) = (tempfile::tempdir().unwrap(), ReplicaSet::of_services());
    let database = servers::unique_name("members");
    let (chronos, users) = open_with(&set.uri(), folder.path(), &database, Duration::from_secs(30));
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;

    let writer = Writer::start_in(&set.uri(), folder.path().to_owned(), &database);
    let warm = writer.users.clone();
    writer
        .spawn(async move { warm.create(json!({ "warm": true })).ack_stored().await })
        .await
        .unwrap()
        .unwrap();
    let primary = set.primary().await;
    set.lag(primary).await;
    let dying = writer.users.clone();
    writer.spawn(async move { dying.update(&id, json!({ "n": "taken back" })).await });
    let begun = Instant::now();
    while set.documents(primary, &database, "users_ver").await.len() < 3 {
        assert!(begun.elapsed() < TIMEOUT, "the row never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer.die();
    assert_eq!(users.get(&id).await.unwrap().unwrap().ov, 0, "it is not shown");

    set.elect_without_the_last_writes(primary).await;
    let written = users.update(&id, json!({ "n": "acknowledged" })).ack_stored().await.unwrap();
    assert_eq!(written.ov, 1);
    set.until_complete().await;
    // And back in good order, with a write on the way.
    let (elected, written) =
        tokio::join!(set.step_down(), users.update(&id, json!({ "n": "over an election" })));
    assert_eq!((set.primary().await, written.unwrap().ov), (elected, 2));
    assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({ "n": "over an election" }));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let found = users.verify().await.unwrap();
    assert!(found.is_clean() && found.versions == 4, "{:#}", found.to_json());
    chronos.shutdown().await.unwrap();
    set.run(set.primary().await, &database, doc! { "dropDatabase": 1 }).await;
}

async fn a_version_without_a_majority_is_nobodys_business(
    set: &mut ReplicaSet,
    users: &Collection,
    folder: &Path,
) {
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;
    let writer = Writer::start(&set.uri(), folder.to_owned());
    let warm = writer.users.clone();
    writer
        .spawn(async move { warm.create(json!({ "warm": true })).ack_stored().await })
        .await
        .unwrap()
        .unwrap();
    until_rows(set, set.primary().await, 2).await;

    // Long enough that both are taken for settled, and the mark is at the second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(users.stable_cv().await.unwrap(), 1);
    let primary = set.primary().await;
    set.lag(primary).await;
    let dying = writer.users.clone();
    writer.spawn(async move { dying.update(&id, json!({ "n": "taken back" })).await });
    until_rows(set, primary, 3).await;
    writer.die();

    assert_eq!(users.get(&id).await.unwrap().unwrap().ov, 0, "it is not shown");
    // Long enough that a reader would take it for settled.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(users.stable_cv().await.unwrap(), 1, "the mark does not move past it");
    let looked = users.verify().await.unwrap();
    assert!(looked.is_clean() && looked.versions == 2, "{:#}", looked.to_json());
    let head = set.documents(primary, DATABASE, "users_head").await;
    assert!(head.iter().all(|head| head.get_i32("ov").ok() == Some(0)), "no head is made from it: {head:?}");

    set.fail_over_without_the_last_writes(primary).await;
    let written = users.update(&id, json!({ "n": "acknowledged" })).ack_stored().await.unwrap();
    assert_eq!(written.ov, 1);
    set.thaw(primary);
    set.until_complete().await;
    assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({ "n": "acknowledged" }));
    let found = users.verify().await.unwrap();
    assert!(found.is_clean(), "{:#}", found.to_json());
}

async fn numbers_that_a_failover_took_back_hold_up_nobody(
    set: &mut ReplicaSet,
    users: &Collection,
    folder: &Path,
) {
    const WRITES: usize = 40;
    let writer = Writer::start(&set.uri(), folder.to_owned());
    let warm = writer.users.clone();
    writer.spawn(async move { warm.create(json!({ "warm": true })).await }).await.unwrap().unwrap();
    let primary = set.primary().await;
    let before = rows(set, primary).await.len();
    set.lag(primary).await;
    let all = writer.users.clone();
    // Their numbers are taken from the old primary; their rows are sent again to the new one, which knows
    // nothing of the numbers.
    let writes = writer.spawn(async move {
        let creates = (0..WRITES).map(|n| all.create(json!({ "n": n })).into_future());
        futures::future::join_all(creates).await
    });
    until_rows(set, primary, before + WRITES).await;
    set.fail_over_without_the_last_writes(primary).await;
    let written: Vec<(ItemId, i64)> =
        writes.await.unwrap().into_iter().map(|w| w.unwrap()).map(|w| (w.id, w.cv)).collect();
    set.thaw(primary);
    set.until_complete().await;

    let (newest, cv) = *written.iter().max_by_key(|(_, cv)| *cv).unwrap();
    assert!(users.stable_cv().await.unwrap() >= cv, "what was acknowledged is settled");
    let next = users.update(&newest, json!({ "m": 1 })).await.unwrap();
    assert!(next.cv > cv);
    for (id, _) in &written {
        assert!(users.get(id).await.unwrap().is_some(), "an acknowledged version is there");
    }
}

/// The default patience is far longer than these elections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_outlive_elections_and_a_member_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = ReplicaSet::start().await;
    let (chronos, users) = open(&set.uri(), folder.path());
    let id = users.create(json!({ "n": 0 })).await.unwrap().id;

    let documents = chronos.documents("main").unwrap();
    let scanned = Namespace::new(DATABASE, "scanned");
    let mut batch = Batch::new();
    for n in 0..1_000 {
        batch.push(&scanned, Write::insert(doc! { "_id": n, "n": n / 10 }));
    }
    documents.apply(batch).await.unwrap();
    let order = ["n", "_id"].map(|path| (path.to_owned(), Direction::Ascending)).to_vec();
    let mut scan = documents.scan(&scanned, Scan { order, ..Scan::default() });
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(scan.try_next().await.unwrap().unwrap().get_i32("_id").unwrap());
    }

    let away = set.others(set.primary().await)[0];
    set.kill(away);
    let more = chronos.with(Route::runtime().tenant("default").collection("more")).unwrap();
    let begun = Instant::now();
    more.create(json!({ "n": 0 })).await.expect("an index is made by the members that are there");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    set.restart(away).await;
    set.until_complete().await;

    let mut n = 0;
    for frozen in [false, true] {
        let primary = set.primary().await;
        if frozen {
            set.freeze(primary);
        } else {
            set.kill(primary);
        }
        // What begins while there is no primary, or goes to one that will never answer.
        let name = format!("late{n}");
        let late = chronos.with(Route::runtime().tenant("default").collection(&name)).unwrap();
        let (other, updated, found, created) = tokio::join!(
            users.create(json!({ "other": n })).into_future(),
            users.update(&id, json!({ "n": n + 1 })).into_future(),
            users.get(&id).into_future(),
            late.create(json!({ "n": n })).into_future(),
        );
        n += 1;
        assert_eq!((other.unwrap().ov, updated.unwrap().ov, created.unwrap().ov), (0, n, 0));
        assert!(found.unwrap().is_some());
        if frozen {
            set.thaw(primary);
        } else {
            set.restart(primary).await;
        }
        set.until_complete().await;
    }
    // The server it began on is not the primary any more, and has been away.
    while let Some(found) = scan.try_next().await.unwrap() {
        ids.push(found.get_i32("_id").unwrap());
    }
    ids.sort_unstable();
    assert_eq!(
        ids,
        (0..1_000).collect::<Vec<_>>(),
        "a scan goes on over a failover, without a gap and without repeating itself"
    );
    let next = set.step_down().await;
    assert_eq!(users.update(&id, json!({ "next": next as u64 })).await.unwrap().ov, n + 1);
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert!(users.verify().await.unwrap().is_clean());
    chronos.shutdown().await.unwrap();
}

/// Two members and an arbiter: with one member away there is a primary, but nothing it writes is ever on a
/// majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_where_no_majority_or_no_command_is_answered() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    // Waiting once for a majority, and as long for what became of it; and a busy machine.
    const END: Duration = Duration::from_secs(10);
    let folder = tempfile::tempdir().unwrap();
    let mut set = ReplicaSet::with_arbiter().await;
    let (chronos, users) = open_with(&set.uri(), folder.path(), DATABASE, TIMEOUT);
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;
    let primary = set.primary().await;
    let away = set.others(primary)[0];
    set.kill(away);

    // A process that begins now finds every index there.
    let (second, others) = open_with(&set.uri(), folder.path(), DATABASE, TIMEOUT);
    assert_eq!(others.get(&id).await.unwrap().unwrap().ov, 0, "what a majority had is still read");
    let late = second.with(Route::runtime().tenant("default").collection("late")).unwrap();
    let begun = Instant::now();
    let (updated, made) = tokio::join!(
        others.update(&id, json!({ "n": 1 })).into_future(),
        late.create(json!({ "n": 0 })).into_future()
    );
    let (updated, made) = (updated.unwrap_err(), made.unwrap_err());
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    assert_eq!(updated.kind(), ErrorKind::Database, "{updated}");
    assert!(made.is_retryable(), "{made}");

    let commands = ["find", "aggregate", "hello", "insert", "update", "findAndModify", "listIndexes"];
    // Twice what the client waits for; switching it off waits for those who are held up.
    let stall = doc! { "failCommands": &commands[..], "blockConnection": true, "blockTimeMS": 6_000, "appName": "stalled" };
    set.run(
        primary,
        "admin",
        doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": stall },
    )
    .await;
    let (stalled, gray) =
        open_with(&format!("{}&appName=stalled", set.uri()), folder.path(), DATABASE, TIMEOUT);
    let begun = Instant::now();
    let (read, written) =
        tokio::join!(gray.get(&id).into_future(), gray.update(&id, json!({ "n": 2 })).into_future());
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
    for error in [read.unwrap_err(), written.unwrap_err()] {
        assert!(error.is_retryable() && error.message().contains("no answer within"), "{error}");
    }
    set.run(primary, "admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await;

    set.restart(away).await;
    set.until_complete().await;
    let written = users.update(&id, json!({ "n": 3 })).await.unwrap();
    assert!(written.ov >= 1);
    for chronos in [chronos, second, stalled] {
        chronos.shutdown().await.unwrap();
    }
}
