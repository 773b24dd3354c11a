//! Several processes on one collection.

use std::path::Path;
use std::process::{Command, Stdio};

use chronos_db::config::Config;
use chronos_db::{Chronos, ItemId, Route, json};

use super::pairing::{Pairing, document, on_durable_pairings};

on_durable_pairings!(writers_in_separate_processes_all_succeed_without_a_hole);

const TASK: &str = "CHRONOS_TEST_PROCESS";
const PROCESSES: usize = 3;
const WRITERS: usize = 8;
const EACH: usize = 5;

/// N-01: the same as within one process, in several that only share the stores.
async fn writers_in_separate_processes_all_succeed_without_a_hole(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({})).await.unwrap().id;
    let start = |process: usize| {
        let task = json!({ "config": p.config(&json!({})), "folder": p.folder(), "id": id.to_string(), "process": process });
        let test = concat!(module_path!(), "::one_of_several_processes").split_once("::").unwrap().1;
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(TASK, task.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    let wait = tokio::task::spawn_blocking(|| {
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect::<Vec<_>>()
    });
    for output in wait.await.unwrap() {
        let (reported, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && reported.contains("all written"), "{reported}\n{errors}");
    }
    let versions = PROCESSES * WRITERS * EACH;
    let history = users.history(&id).await.unwrap();
    assert_eq!(history.len(), versions + 1);
    assert!(history.iter().zip(0..).all(|(version, ov)| version.ov == ov));
    let last = document(&users, &id).await;
    for process in 0..PROCESSES {
        for writer in 0..WRITERS {
            assert_eq!(last[format!("p{process}w{writer}")], json!(EACH - 1));
        }
    }
}

/// Does nothing in an ordinary run: it is what the test above starts.
#[tokio::test]
async fn one_of_several_processes() {
    let Ok(task) = std::env::var(TASK) else { return };
    let task = chronos_db::Json::parse(&task).unwrap();
    let folder = Path::new(task["folder"].as_str().unwrap());
    let chronos = Chronos::open(Config::from_json(&task["config"], folder).unwrap()).unwrap();
    let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
    let id: ItemId = task["id"].as_str().unwrap().parse().unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let (users, key) = (users.clone(), format!("p{}w{writer}", task["process"]));
        tokio::spawn(async move {
            for n in 0..EACH {
                users.update(&id, json!({ &*key: n })).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    chronos.shutdown().await.unwrap();
    println!("all written");
}
