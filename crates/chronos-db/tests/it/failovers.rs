//! Two processes write while the members of their replica set step down, die, freeze and lag. What was
//! acknowledged is there, once, before any repair.
//!
//! `CHRONOS_FAILOVER_MINUTES=20` lets it go on for so long; without it every kind of fault comes once.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::Document;
use chronos_db::{ErrorKind, ItemId, Json as Value, json};
use parking_lot::Mutex;
use test_support::ReplicaSet;

use crate::members::{DATABASE, TIMEOUT, open};

/// What a writer is to do; without it the test that plays one has nothing to do.
const SCENARIO: &str = "CHRONOS_FAILOVER_SCENARIO";
const MINUTES: &str = "CHRONOS_FAILOVER_MINUTES";
const WRITERS: usize = 2;
/// Tasks of one writer, each with items of its own beside one that all share.
const TASKS: usize = 4;

/// A write that was acknowledged.
#[derive(Debug, PartialEq, Eq)]
struct Reported {
    id: String,
    ov: i64,
    cv: i64,
}

fn spawn(scenario: &Value) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failovers::writer", "--nocapture"])
        .env(SCENARIO, scenario.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Plays a writer when this binary starts itself again with a scenario. It ends when its stop file is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let scenario: Value = Value::parse(&scenario).unwrap();
    let text = |key: &str| scenario[key].as_str().unwrap().to_owned();
    let (chronos, users) = open(&text("uri"), Path::new(&text("folder")));
    let ledger =
        Arc::new(Mutex::new(OpenOptions::new().create(true).append(true).open(text("ledger")).unwrap()));
    let shared: ItemId = text("shared").parse().unwrap();
    let (run, stop) = (text("run"), PathBuf::from(text("stop")));
    let tasks = (0..TASKS).map(|task| {
        let (users, ledger, run, stop) = (users.clone(), Arc::clone(&ledger), run.clone(), stop.clone());
        tokio::spawn(async move {
            let mut own = None;
            for step in 0_u64.. {
                if stop.exists() {
                    return;
                }
                let request = format!("{run}.{task}.{step}");
                let fields = json!({ "tag": &request });
                let written = match (step % 5, own) {
                    (0, _) | (_, None) => users.create(fields).request_id(&request).await,
                    (1, _) => users.update(&shared, fields).request_id(&request).await,
                    (_, Some(id)) => users.update(&id, fields).request_id(&request).await,
                };
                match written {
                    Ok(written) => {
                        own = Some(if step % 5 == 1 { own.unwrap_or(written.id) } else { written.id });
                        let reported = json!({ "request": request, "id": written.id.to_string(), "ov": written.ov, "cv": written.cv });
                        write_line(&ledger, &reported);
                    }
                    // Nobody knows whether it took place, or others were always faster; it was not
                    // acknowledged.
                    Err(error) => {
                        assert!(error.is_retryable() || error.kind() == ErrorKind::Database, "{request}: {error}");
                        write_line(&ledger, &json!({ "failed": request, "error": error.to_string() }));
                    }
                }
            }
        })
    });
    for ended in futures::future::join_all(tasks).await {
        ended.unwrap();
    }
    users.flush(TIMEOUT).await.unwrap();
    chronos.shutdown().await.unwrap();
}

fn write_line(ledger: &Mutex<File>, line: &Value) {
    let mut file = ledger.lock();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn lines(ledgers: &[PathBuf]) -> Vec<Value> {
    let text =
        ledgers.iter().map(|ledger| std::fs::read_to_string(ledger).unwrap_or_default()).collect::<String>();
    text.lines().filter_map(|line| Value::parse(line).ok()).collect()
}

/// Waits until `more` writes are acknowledged than now, by all writers together.
async fn progress(ledgers: &[PathBuf], more: usize) {
    let count = || lines(ledgers).iter().filter(|line| line.get("id").is_some()).count();
    let (before, begun) = (count(), Instant::now());
    while count() < before + more {
        assert!(begun.elapsed() < TIMEOUT * 2, "nobody writes any more: {:?}", lines(ledgers).last());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn fault(set: &mut ReplicaSet, kind: usize, ledgers: &[PathBuf]) {
    let primary = set.primary().await;
    match kind % 4 {
        0 => {
            set.step_down().await;
        }
        1 => {
            set.kill(primary);
            set.primary().await;
            progress(ledgers, 20).await;
            set.restart(primary).await;
        }
        2 => {
            set.freeze(primary);
            set.primary().await;
            progress(ledgers, 20).await;
            set.thaw(primary);
        }
        _ => {
            // What it writes from now on is undone.
            set.lag(primary).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            set.fail_over_without_the_last_writes(primary).await;
            progress(ledgers, 20).await;
            set.thaw(primary);
        }
    }
    set.until_complete().await;
    progress(ledgers, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_to_two_processes_outlives_every_kind_of_failover() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = ReplicaSet::start().await;
    let (chronos, users) = open(&set.uri(), folder.path());
    let shared = users.create(json!({ "tag": "shared" })).request_id("shared").await.unwrap().id;
    let stop = folder.path().join("stop");
    let ledgers: Vec<PathBuf> = (0..WRITERS).map(|n| folder.path().join(format!("ledger-{n}"))).collect();
    let writers: Vec<Child> = (0..WRITERS)
        .map(|n| {
            spawn(&json!({
                "uri": set.uri(), "folder": folder.path().display().to_string(), "ledger": ledgers[n].display().to_string(), "stop": stop.display().to_string(), "run": format!("w{n}"), "shared": shared.to_string(),
            }))
        })
        .collect();
    progress(&ledgers, 40).await;

    let minutes: u64 =
        std::env::var(MINUTES).ok().map_or(0, |minutes| minutes.parse().expect("a number of minutes"));
    let (begun, mut kind) = (Instant::now(), 0);
    while kind < 4 || begun.elapsed() < Duration::from_secs(minutes * 60) {
        fault(&mut set, kind, &ledgers).await;
        kind += 1;
    }
    std::fs::write(&stop, "").unwrap();
    for writer in writers {
        let output = tokio::task::spawn_blocking(move || writer.wait_with_output().unwrap()).await.unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    let reported = lines(&ledgers);
    let rows = set.documents(set.primary().await, DATABASE, "users_ver").await;
    everything_acknowledged_is_there_once(&reported, &rows);
    let found = users.verify().await.unwrap();
    assert!(found.is_clean(), "after {kind} faults: {:#}", found.to_json());
    chronos.shutdown().await.unwrap();
}

fn everything_acknowledged_is_there_once(reported: &[Value], rows: &[Document]) {
    let mut by_request: BTreeMap<&str, Vec<Reported>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.get_str("op").is_ok_and(|op| op != "VOID")) {
        let number = |key: &str| row.get_i64(key).or_else(|_| row.get_i32(key).map(i64::from)).unwrap();
        let id = row.get_object_id("itemId").unwrap().to_hex();
        let request = row.get_str("requestId").unwrap();
        by_request.entry(request).or_default().push(Reported { id, ov: number("ov"), cv: number("cv") });
    }
    let mut acknowledged = 0;
    for line in reported.iter().filter(|line| line.get("id").is_some()) {
        let expected = Reported {
            id: line["id"].as_str().unwrap().to_owned(),
            ov: line["ov"].as_i64().unwrap(),
            cv: line["cv"].as_i64().unwrap(),
        };
        let request = line["request"].as_str().unwrap();
        assert_eq!(by_request.get(request), Some(&vec![expected]), "{request} was acknowledged");
        acknowledged += 1;
    }
    for (request, versions) in &by_request {
        assert_eq!(versions.len(), 1, "{request} took place more than once: {versions:?}");
    }
    let failed: Vec<_> = reported.iter().filter_map(|line| line.get("error")).collect();
    assert!(failed.len() * 20 <= acknowledged, "{} of {acknowledged} failed: {failed:?}", failed.len());
}
