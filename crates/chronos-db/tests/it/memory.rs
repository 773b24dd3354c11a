//! How much memory a process takes while versions wait to be stored, and while they are backed up and restored. Each
//! scenario is a process of its own that prints its peak.

mod backups;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::config::{Base64Property, CollectionMap, Config};
use chronos_db::{Chronos, Collection, Json, Route, json};
use futures::{StreamExt as _, TryStreamExt as _};
use test_support::{Failing, Fault, objects};

/// The scenario of a child; without it the test that plays one has nothing to do.
const SCENARIO: &str = "CHRONOS_MEMORY_SCENARIO";
/// The length of a large document.
const LARGE: usize = 8 * 1024 * 1024;
/// Longer than any of them takes.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The most that this process ever had in memory, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn open(
    folder: &std::path::Path,
    storage: &Arc<Failing<objects::Call>>,
    inline_max: usize,
) -> (Chronos, Collection) {
    let file = Base64Property::new("application/octet-stream");
    let config = Config::embedded_builder(folder)
        .collection("files", CollectionMap::default().indexed(["n"]).base64("file", file))
        .inline_max_bytes(inline_max)
        .build()
        .unwrap();
    let layer = Arc::clone(storage);
    let builder = Chronos::builder(config).cache_bytes(0);
    let chronos =
        builder.wrap_objects(move |inner| objects::decorate(inner, Arc::clone(&layer))).open().unwrap();
    let files = chronos.with(Route::runtime().tenant("default").collection("files")).unwrap();
    (chronos, files)
}

async fn create(files: &Collection, count: u64, at_once: usize, document: impl Fn(u64) -> Json) {
    let writes = futures::stream::iter(0..count)
        .map(|n| files.create(document(n)).into_future())
        .buffer_unordered(at_once);
    writes.for_each(|written| async { assert!(written.unwrap().changed) }).await;
}

/// Plays a scenario when this binary starts itself again with one: `NAME FOLDER COUNT`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let words: Vec<&str> = scenario.split(' ').collect();
    let (name, folder, count): (_, _, u64) =
        (words[0], std::path::Path::new(words[1]), words[2].parse().unwrap());
    let storage = Failing::<objects::Call>::new();
    match name {
        // R8: blobs that ride in rows, and a storage that takes none of them.
        "outage" => {
            let (chronos, files) = open(folder, &storage, 1024 * 1024);
            storage.switch_all_on(Fault::Before);
            let blob = STANDARD.encode(vec![7; 700 * 1024]);
            create(&files, count, 4, |n| json!({ "n": n, "file": blob.as_str() })).await;
            println!("peak {}", peak());
            storage.switch_off();
            assert_eq!(files.flush(TIMEOUT).await.unwrap(), 0);
            chronos.shutdown().await.unwrap();
        }
        // R31: many small documents.
        "small" => {
            let (chronos, files) = open(folder, &storage, 1024 * 1024);
            storage.switch_all_on(Fault::Before);
            create(
                &files,
                count,
                256,
                |n| json!({ "n": n, "name": format!("item {n}"), "price": 1.5, "tags": ["a", "b"] }),
            )
            .await;
            println!("peak {}", peak());
            chronos.shutdown_within(Duration::from_millis(1)).await.unwrap();
        }
        // Documents larger than anything that rides in a row.
        "large" => {
            let (chronos, files) = open(folder, &storage, 1024 * 1024);
            let text = "x".repeat(LARGE);
            create(&files, count, 1, |n| json!({ "n": n, "text": text.as_str() })).await;
            chronos.shutdown().await.unwrap();
        }
        "streamed" => {
            let (chronos, files) = open(folder, &storage, 1024 * 1024);
            let mut views = files.list().stream().await.unwrap();
            let mut seen = 0;
            while let Some(view) = views.try_next().await.unwrap() {
                assert_eq!(view.document()["text"].as_str().unwrap().len(), LARGE);
                seen += 1;
            }
            assert_eq!(seen, count);
            println!("peak {}", peak());
            drop(views);
            chronos.shutdown().await.unwrap();
        }
        "rows" => backups::rows(folder, count).await,
        "backed_up" => backups::backed_up(folder, count).await,
        "restored" => backups::restored(folder, count).await,
        other => panic!("no scenario is called `{other}`"),
    }
}

/// Runs a scenario in a process of its own; returns its peak, if it says one.
async fn run(name: &str, folder: &std::path::Path, count: u64) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "memory::child", "--nocapture"])
        .env(SCENARIO, format!("{name} {} {count}", folder.display()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{name} of {count}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().find_map(|line| line.strip_prefix("peak ")).map(|peak| peak.parse().unwrap())
}

#[tokio::test]
async fn an_outage_of_the_storage_takes_no_more_memory_the_longer_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let few = run("outage", &dir.path().join("few"), 80).await.unwrap();
    let many = run("outage", &dir.path().join("many"), 240).await.unwrap();
    // 160 more blobs are 112 MB.
    assert!(many < few + 40, "{few} MiB with 80 blobs waiting, {many} MiB with 240");
    assert!(many < 200, "{many} MiB");
}

#[tokio::test]
async fn many_small_versions_that_wait_take_no_more_memory_than_some() {
    let dir = tempfile::tempdir().unwrap();
    // `CHRONOS_MEMORY_VERSIONS` for as many as anybody imports.
    let count = std::env::var("CHRONOS_MEMORY_VERSIONS").map_or(24_000, |count| count.parse().unwrap());
    let few = run("small", &dir.path().join("few"), count / 2).await.unwrap();
    let many = run("small", &dir.path().join("many"), count).await.unwrap();
    assert!(many < few + 60, "{few} MiB for {}, {many} MiB for {count}", count / 2);
    assert!(many < 200, "{many} MiB");
}

#[tokio::test]
async fn a_stream_of_large_documents_has_few_of_them_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    run("large", dir.path(), 24).await;
    let peak = run("streamed", dir.path(), 24).await.unwrap();
    // Sixteen of them at once are 128 MiB, and as much again as values.
    assert!(peak < 140, "{peak} MiB");
}
