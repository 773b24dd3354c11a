//! Administration of connections, storages and buckets, on real servers and on what does not answer.

use std::time::{Duration, Instant};

use chronos_db::config::Config;
use chronos_db::{Chronos, Json, json};
use tempfile::TempDir;
use test_support::servers;

/// A password that must never be shown.
const SECRET: &str = "Gartenzaun7Laterne";
const LIMIT: Duration = Duration::from_secs(10);

fn opened(config: &Json) -> (Chronos, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Chronos::open(Config::parse(&config.to_string(), folder.path()).unwrap()).unwrap(), folder)
}

/// A configuration with every kind of store: a server and a file, and S3, Azure and a folder.
fn of_every_kind() -> Json {
    let (s3, azure) = (servers::s3(), servers::azure());
    let entry = |connection: &str, space: &str| {
        let name = servers::unique_name("admin");
        json!({ "dbConnRef": connection, "dbName": name, "spaceConnRef": space })
    };
    let of_tenant = |tenant: &str, connection: &str, space: &str| {
        let mut entry = entry(connection, space);
        entry["tenantId"] = tenant.into();
        entry
    };
    json!({
        "dbConnections": {
            "file": { "mongoUri": "embedded:./data" },
            "standalone": { "mongoUri": servers::mongo_standalone_uri() },
            "set": { "mongoUri": servers::mongo_rs_uri() },
        },
        "spacesConnections": {
            "s3": { "provider": "s3", "endpoint": s3.endpoint, "accessKey": s3.access_key, "secretKey": s3.secret_key },
            "azure": { "provider": "azure", "endpoint": azure.endpoint, "accessKey": azure.account, "secretKey": azure.key },
            "folder": { "provider": "local", "endpoint": "./objects" },
        },
        "databases": {
            "runtime": { "tenantDatabases": [of_tenant("a", "set", "s3"), of_tenant("b", "standalone", "azure"), of_tenant("c", "file", "folder")] },
            "metadata": { "genericDatabase": entry("file", "folder") },
            "logs": entry("file", "folder"),
        },
    })
}

/// The same with a server and a storage that are not there.
fn with_dead_ones() -> Json {
    let mut config = of_every_kind();
    config["dbConnections"]["far"] = json!({ "mongoUri": format!("mongodb://reporter:{SECRET}@127.0.0.1:1/?serverSelectionTimeoutMS=500&connectTimeoutMS=500") });
    config["spacesConnections"]["shelf"] = json!({ "provider": "s3", "endpoint": "http://127.0.0.1:1", "accessKey": "reporter", "secretKey": SECRET });
    config["databases"]["runtime"]["tenantDatabases"].as_array_mut().unwrap().push(json!({
        "tenantId": "far", "dbConnRef": "far", "dbName": "far", "spaceConnRef": "shelf", "bucket": "far",
    }));
    config
}

fn shows_no_secret(shown: &str) {
    let mut secrets = vec![SECRET.to_owned(), servers::s3().secret_key, servers::azure().key];
    secrets.retain(|secret| !secret.is_empty());
    for secret in secrets {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

/// N-27, G-29.
#[tokio::test]
async fn every_connection_and_storage_answers_and_every_type_is_named() {
    let (chronos, _folder) = opened(&of_every_kind());
    let health = chronos.admin().health().await.unwrap();
    let reported = health.to_json();
    assert!(health.is_ok(), "{reported:#}");
    assert_eq!((health.connections.len(), health.storages.len(), health.databases.len()), (3, 3, 5));
    for name in ["metadata", "knowledge", "runtime", "logs", "messaging", "identities"] {
        assert!(reported["databaseTypes"].get(name).is_some(), "{name}: {reported:#}");
    }
    assert_eq!(reported["databaseTypes"]["runtime"], json!({"configured": 3, "ok": true}));
    assert_eq!(reported["databaseTypes"]["messaging"], json!({"configured": 0, "ok": null}));
    shows_no_secret(&format!("{reported} {health:?}"));
    chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_does_not_answer_is_named_within_its_time_and_keeps_nothing_else_from_being_asked() {
    let (chronos, _folder) = opened(&with_dead_ones());
    let begun = Instant::now();
    let health = chronos.admin().health().timeout(Duration::from_secs(2)).await.unwrap();
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    let reported = health.to_json();
    assert!(!health.is_ok());
    for ping in health.connections.iter().chain(&health.storages) {
        assert_eq!(ping.is_ok(), !["far", "shelf"].contains(&&*ping.name), "{reported:#}");
    }
    let far: Vec<_> = health.databases.iter().filter(|database| !database.ok).collect();
    assert_eq!((far.len(), far[0].connection.as_str(), far[0].storage.as_deref()), (1, "far", Some("shelf")));
    assert_eq!(reported["databaseTypes"]["runtime"]["ok"], json!(false));
    shows_no_secret(&format!("{reported} {health:?}"));

    let checked = chronos.admin().check_storage().await.unwrap();
    let dead: Vec<_> = checked.iter().filter(|storage| !storage.is_ok()).collect();
    assert_eq!((dead.len(), dead[0].storage.as_str()), (1, "shelf"));
    let ensured = chronos.admin().ensure_buckets().dry_run().await.unwrap();
    let dead: Vec<_> = ensured.bucket_statuses.iter().filter(|bucket| !bucket.accessible).collect();
    assert!(!ensured.is_ok() && dead.len() == 1 && dead[0].storage == "shelf", "{ensured:?}");
    let spaces = chronos.admin().check_spaces().await.unwrap();
    assert!(spaces.iter().all(|space| !space.is_valid()), "none of them is DigitalOcean's: {spaces:?}");
    let backends = chronos.admin().backends();
    assert_eq!(backends.len(), 6);
    let shown: Vec<String> = backends.iter().map(|backend| backend.to_json().to_string()).collect();
    assert!(shown.iter().any(|backend| backend.contains("\"far\"") && backend.contains("127.0.0.1:1")));
    shows_no_secret(&format!("{checked:?} {ensured:?} {spaces:?} {backends:?} {shown:?}"));
    // What hangs is left behind.
    let _ = chronos.shutdown_within(Duration::from_millis(200)).await;
}

/// N-27, G-58.
#[tokio::test]
async fn buckets_that_are_missing_are_created_once() {
    let (chronos, _folder) = opened(&of_every_kind());
    let admin = chronos.admin();
    let missing =
        admin.check_storage().await.unwrap().iter().map(|storage| storage.missing.len()).sum::<usize>();
    let would = admin.ensure_buckets().create().dry_run().await.unwrap();
    assert_eq!((would.buckets_created, would.buckets_checked), (5, 5), "{would:?}");
    assert_eq!((missing, would.bucket_statuses.iter().filter(|bucket| bucket.exists).count()), (5, 0));
    assert_eq!(admin.ensure_buckets().await.unwrap().buckets_created, 0, "it was not asked to create any");
    let create = || admin.ensure_buckets().create().into_future();
    let (one, other) = futures::future::join(create(), create()).await;
    for ensured in [one.unwrap(), other.unwrap()] {
        assert!(ensured.is_ok(), "{ensured:?}");
        assert!(
            ensured.bucket_statuses.iter().all(|bucket| bucket.exists && bucket.accessible),
            "{ensured:?}"
        );
    }
    assert_eq!(admin.ensure_buckets().create().await.unwrap().buckets_created, 0);
    let checked = admin.check_storage().await.unwrap();
    assert!(checked.iter().all(|storage| storage.is_ok() && storage.missing.is_empty()), "{checked:?}");
    chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn refused_credentials_are_reported_without_them() {
    let s3 = servers::s3();
    let config = json!({
        "dbConnections": { "file": { "mongoUri": "embedded::memory:" } },
        "spacesConnections": { "s3": { "provider": "s3", "endpoint": s3.endpoint, "accessKey": s3.access_key, "secretKey": SECRET } },
        "databases": { "runtime": { "tenantDatabases": [{ "tenantId": "a", "dbConnRef": "file", "dbName": "a", "spaceConnRef": "s3", "bucket": "records" }] } },
    });
    let (chronos, _folder) = opened(&config);
    let checked = chronos.admin().check_storage().await.unwrap();
    assert!(
        !checked[0].is_ok() && checked[0].to_json()["error"].as_str().unwrap().contains("credentials"),
        "{checked:?}"
    );
    shows_no_secret(&format!("{checked:?}"));
    assert!(!chronos.admin().health().await.unwrap().is_ok());
    chronos.shutdown().await.unwrap();
}
