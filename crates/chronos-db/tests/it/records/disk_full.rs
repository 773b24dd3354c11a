//! A disk that is full: what was acknowledged is there, what was refused is not, and all goes on when there is
//! room again. The disk is a small file system in memory, which `unshare` and `mount` give a child of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::IntoFuture as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chronos_db::config::Config;
use chronos_db::{Chronos, Collection, ErrorKind, Json, Route, Written, json};

use super::child;
use super::pairing::{Pairing, TIMEOUT, on_pairings, refused};

on_pairings!(embedded_local = EmbeddedLocal:
    a_full_disk_of_objects_stops_pruning_and_no_write,
    a_full_disk_of_documents_refuses_writes_and_loses_none
);
on_pairings!(standalone_local = StandaloneLocal: a_full_disk_of_objects_stops_pruning_and_no_write);

const TASK: &str = "CHRONOS_TEST_FULL_DISK";
const DISK: &str = "8m";

/// Runs one of the children below with a small disk at `./disk`.
async fn on_a_small_disk(p: &Pairing, test: &str, more: Json) {
    let disk = p.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let test = format!("{}::{test}", module_path!());
    let inner = child::command(p, &test, TASK, &more, "", json!({ "disk": disk.to_str().unwrap() }));
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-ec"]);
    command.arg(format!("mount -t tmpfs -o size={DISK} small \"$0\"; exec \"$@\""));
    command.arg(&disk).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("audited"),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn keeping_one() -> Json {
    json!({
        "retention": { "ver": { "maxPerItem": 1 } },
        "inlineMaxBytes": 4_096,
        "counterRules": {"rules": [{"name": "all", "countUnique": ["n"]}]},
        "collectionMaps": {"users": {"indexedProps": ["n"]}},
    })
}

/// What fills the disk, and goes again.
struct Filler(PathBuf);

impl Filler {
    /// Takes all but nothing of what is left.
    fn fill(disk: &Path) -> Self {
        let path = disk.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [64 * 1024, 1024] {
            let error = loop {
                if let Err(error) = file.write_all(&vec![b'x'; size]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        }
        Self(path)
    }

    fn make_room(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

/// The version that each request got, and the requests that were refused.
#[derive(Default)]
struct Ledger {
    reported: BTreeMap<String, Written>,
    refused: Vec<String>,
    /// The disk was full while they were committed.
    unknown: Vec<String>,
}

impl Ledger {
    fn note(&mut self, request: &str, result: chronos_db::Result<Written>) -> bool {
        match result {
            Ok(written) => {
                self.reported.insert(request.to_owned(), written);
                true
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Database | ErrorKind::Storage), "{error}");
                assert!(error.message().contains("disk"), "it says what is the matter: {error}");
                let known = if error.is_undecided() { &mut self.unknown } else { &mut self.refused };
                known.push(request.to_owned());
                false
            }
        }
    }

    fn failed(&self) -> usize {
        self.refused.len() + self.unknown.len()
    }

    /// Everything acknowledged is there, once; nothing refused is.
    async fn audit(&self, users: &Collection) {
        let items = users.list().limit(10_000).await.unwrap().items;
        let mut seen = BTreeMap::new();
        for version in
            futures::future::join_all(items.iter().map(|view| users.history(&view.id).into_future())).await
        {
            for version in version.unwrap() {
                let request = version.request_id.clone().unwrap();
                let document = users.get(&version.id).version(version.ov).await.unwrap().unwrap().document();
                assert_eq!(document["tag"], json!(request));
                assert!(seen.insert(request, (version.id, version.ov, version.cv)).is_none());
            }
        }
        let count = seen.len();
        for (request, reported) in &self.reported {
            assert_eq!(
                seen.remove(request),
                Some((reported.id, reported.ov, reported.cv)),
                "{request} was acknowledged"
            );
        }
        assert!(seen.keys().all(|request| self.unknown.contains(request)), "{seen:?} was refused");
        let totals = users.counters().totals().await.unwrap().counts;
        assert_eq!((totals.created as usize, totals.sum() as usize), (items.len(), count));
        assert!(!users.counters().recount().await.unwrap().corrected);
        let found = users.verify().await.unwrap();
        assert!(found.is_clean() && found.unflushed == 0, "{:#}", found.to_json());
    }
}

fn document(request: &str, length: usize) -> Json {
    json!({ "tag": request, "n": length, "text": "x".repeat(length) })
}

async fn a_full_disk_of_objects_stops_pruning_and_no_write(p: &Pairing) {
    let mut more = keeping_one();
    more["localStorage"] = json!({ "enabled": true, "basePath": "./disk/objects" });
    on_a_small_disk(p, "with_objects_on_it", more).await;
}

/// Does nothing in an ordinary run.
#[tokio::test]
async fn with_objects_on_it() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
    let mut ledger = Ledger::default();
    let mut ids = Vec::new();
    for n in 0..6 {
        let request = format!("first {n}");
        let created = users.create(document(&request, 100)).request_id(&request).await;
        ids.push(created.as_ref().unwrap().id);
        assert!(ledger.note(&request, created));
        let request = format!("second {n}");
        assert!(
            ledger.note(&request, users.update(&ids[n], document(&request, 200)).request_id(&request).await)
        );
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let filler = Filler::fill(Path::new(task["disk"].as_str().unwrap()));
    let error = users.prune().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Storage && error.is_retryable(), "{error}");
    assert!(error.message().contains("make room"), "{error}");
    assert_eq!(users.manifests().await.unwrap(), []);
    for (n, id) in ids.iter().enumerate() {
        let request = format!("full {n}");
        let update = users.update(id, document(&request, 300)).request_id(&request).await;
        assert!(ledger.note(&request, update), "small writes go on: {:?}", ledger.refused);
        let view = users.get(id).version(0).await.unwrap().unwrap();
        assert_eq!(view.item["tag"], json!(format!("first {n}")));
    }
    assert!(ledger.note("new", users.create(document("new", 100)).request_id("new").await));
    // What is stored before its commit has nowhere to go.
    let large = users.update(&ids[0], document("large", 300_000)).request_id("large").await;
    assert!(!ledger.note("large", large));
    assert_ne!(users.flush(Duration::from_millis(300)).await.unwrap(), 0, "what waits");
    filler.make_room();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(users.prune().await.unwrap().versions, 12);
    ledger.audit(&users).await;
    chronos.shutdown().await.unwrap();
    println!("audited");
}

async fn a_full_disk_of_documents_refuses_writes_and_loses_none(p: &Pairing) {
    let mut more = keeping_one();
    more["localStorage"] = json!({ "enabled": true, "basePath": "./disk/objects" });
    more["dbConnections"] = json!({ "main": { "mongoUri": "embedded:./disk/documents" } });
    on_a_small_disk(p, "with_everything_on_it", more).await;
}

/// Does nothing in an ordinary run.
#[tokio::test]
async fn with_everything_on_it() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let route = || Route::runtime().tenant("acme").collection("users");
    let users = chronos.with(route()).unwrap();
    let mut ledger = Ledger::default();
    let created = users.create(document("first", 100)).request_id("first").await;
    let id = created.as_ref().unwrap().id;
    assert!(ledger.note("first", created));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let filler = Filler::fill(Path::new(task["disk"].as_str().unwrap()));
    let mut n = 0;
    while ledger.failed() < 20 {
        let request = format!("write {n}");
        let result = match n % 2 {
            0 => users.create(document(&request, 2_000)).request_id(&request).await,
            _ => users.update(&id, document(&request, 2_000)).request_id(&request).await,
        };
        ledger.note(&request, result);
        n += 1;
        assert!(n < 10_000, "the disk is never full");
    }
    assert_eq!(users.get(&id).version(0).await.unwrap().unwrap().item["tag"], json!("first"));
    let full = refused(users.prune().await);
    assert!(matches!(full, ErrorKind::Database | ErrorKind::Storage), "{full:?}");
    // Another process finds what this one acknowledged, before there is room.
    let config = Config::from_json(&task["config"], Path::new(task["folder"].as_str().unwrap())).unwrap();
    let other = Chronos::open(config).unwrap();
    let newest = other.with(route()).unwrap().get(&id).await.unwrap().unwrap();
    let reported =
        ledger.reported.values().filter(|reported| reported.id == id).map(|reported| reported.ov).max();
    assert_eq!(Some(newest.ov), reported);
    filler.make_room();
    for n in 0..5 {
        let request = format!("room {n}");
        assert!(ledger.note(&request, users.update(&id, document(&request, 100)).request_id(&request).await));
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert!(users.prune().await.unwrap().versions > 0);
    ledger.audit(&users).await;
    other.shutdown().await.unwrap();
    chronos.shutdown().await.unwrap();
    println!("audited");
}
