//! Object storage: the suite on every backend, and what only some of them have.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronos_db::ErrorKind;
use chronos_db::config::{Provider, SpaceConnection};
use chronos_db::objects::{ObjectStorage, Put, PutOptions, StoreObjects};
use futures::TryStreamExt as _;
use tempfile::TempDir;
use test_support::SilentPort;

async fn memory() -> (Arc<dyn ObjectStorage>, ()) {
    (Arc::new(StoreObjects::memory("bucket").unwrap()), ())
}

async fn local() -> (Arc<dyn ObjectStorage>, TempDir) {
    let root = tempfile::tempdir().unwrap();
    (Arc::new(StoreObjects::local(&root.path().join("not yet there"), "bucket").unwrap()), root)
}

async fn s3() -> (Arc<dyn ObjectStorage>, ()) {
    (Arc::new(StoreObjects::s3(&s3_connection(), &new_bucket()).unwrap()), ())
}

async fn azure() -> (Arc<dyn ObjectStorage>, ()) {
    (Arc::new(StoreObjects::azure(&azure_connection(), &new_bucket()).unwrap()), ())
}

chronos_db::objects_suite!(memory: basics, races, without_presigning);
chronos_db::objects_suite!(local: basics, races, without_presigning);
// The server of the S3 tests looks and then writes, so it cannot decide races.
chronos_db::objects_suite!(s3: basics, presigning);
chronos_db::objects_suite!(azure: basics, races, presigning);

fn server(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; start the servers with scripts/services"))
}

fn s3_connection() -> SpaceConnection {
    s3_connection_to(server("S3_ENDPOINT"))
}

fn s3_connection_to(endpoint: String) -> SpaceConnection {
    SpaceConnection::s3(endpoint, server("S3_ACCESS_KEY"), server("S3_SECRET_KEY")).force_path_style(true)
}

fn azure_connection() -> SpaceConnection {
    SpaceConnection::azure(server("AZURE_ENDPOINT"), server("AZURE_ACCOUNT"), server("AZURE_KEY"))
}

fn new_bucket() -> String {
    format!("test-{}", bson::oid::ObjectId::new())
}

#[tokio::test]
async fn s3_refuses_wrong_credentials_and_the_error_names_no_secret() {
    let mut connection = s3_connection();
    connection.secret_key = "wrong-secret-of-the-test".into();
    let (access_key, objects) =
        (server("S3_ACCESS_KEY"), StoreObjects::s3(&connection, &new_bucket()).unwrap());
    assert_refused(&objects, &[&access_key, "wrong-secret-of-the-test"]).await;
}

#[tokio::test]
async fn azure_refuses_wrong_credentials_and_the_error_names_no_secret() {
    let mut connection = azure_connection();
    connection.secret_key = "d3Jvbmcta2V5LW9mLXRoZS10ZXN0".into();
    let objects = StoreObjects::azure(&connection, &new_bucket()).unwrap();
    assert_refused(&objects, &["d3Jvbmcta2V5LW9mLXRoZS10ZXN0"]).await;
}

async fn assert_refused(objects: &StoreObjects, secrets: &[&str]) {
    let put = objects
        .put("k", Bytes::from_static(b"x"), PutOptions::default())
        .await
        .expect_err("wrong credentials");
    let get = objects.get("k").await.expect_err("wrong credentials");
    let list = objects.list("").try_collect::<Vec<_>>().await.expect_err("wrong credentials");
    for error in [put, get, list] {
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        assert!(!error.is_retryable(), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("credentials") && shown.contains("test-"), "{shown}");
        for secret in secrets {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_several_make_at_once_lies_in_the_region_of_their_connection() {
    for region in ["us-east-1", "eu-central-1", "sa-east-1"] {
        let connection = s3_connection_to(test_support::servers::moto_endpoint()).region(region);
        let bucket = new_bucket();
        let puts = (0..6).map(|n| {
            let objects = StoreObjects::s3(&connection, &bucket).unwrap();
            async move { objects.put(&n.to_string(), Bytes::from_static(b"x"), PutOptions::default()).await }
        });
        for put in futures::future::join_all(puts).await {
            assert_eq!(put.unwrap(), Put::Stored, "{region}");
        }
        let url = format!("{}/{bucket}?location", connection.endpoint);
        let location = reqwest::get(url).await.unwrap().text().await.unwrap();
        // Amazon's first region has no name here.
        assert!(
            if region == "us-east-1" { !location.contains("east") } else { location.contains(region) },
            "{region}: {location}"
        );
    }
}

#[tokio::test]
async fn a_bucket_that_has_to_be_there_is_not_made() {
    let root = tempfile::tempdir().unwrap();
    let local = StoreObjects::local(root.path(), "bucket").unwrap();
    // The other S3 server makes a bucket with any put.
    let moto = s3_connection_to(test_support::servers::moto_endpoint());
    let backends: [Arc<dyn ObjectStorage>; 3] =
        [Arc::new(local), Arc::new(StoreObjects::s3(&moto, &new_bucket()).unwrap()), azure().await.0];
    for objects in backends {
        let known = PutOptions { bucket_must_exist: true, ..PutOptions::default() };
        for _ in 0..2 {
            let error = objects.put("k", Bytes::new(), known.clone()).await.expect_err("there is no bucket");
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        objects.put("k", Bytes::new(), PutOptions::default()).await.unwrap();
        assert_eq!(objects.put("k", Bytes::new(), known).await.unwrap(), Put::Stored);
    }
}

#[tokio::test]
async fn a_storage_that_is_down_is_reported_within_seconds_and_may_be_tried_again() {
    let nobody = SilentPort::take();
    let port = nobody.address().port();
    for provider in [Provider::S3, Provider::Azure] {
        let endpoint = format!("http://127.0.0.1:{port}/account");
        let connection = match provider {
            Provider::S3 => SpaceConnection::s3(endpoint, "account", "c2VjcmV0"),
            _ => SpaceConnection::azure(endpoint, "account", "c2VjcmV0"),
        };
        let objects = match provider {
            Provider::S3 => StoreObjects::s3(&connection, "bucket"),
            _ => StoreObjects::azure(&connection, "bucket"),
        }
        .unwrap();
        let start = Instant::now();
        let error = objects.put("k", Bytes::new(), PutOptions::default()).await.expect_err("nobody is there");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Storage);
        assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_created_before_the_first_put_into_a_local_folder() {
    let root = tempfile::tempdir().unwrap();
    let objects = StoreObjects::local(root.path(), "bucket").unwrap();
    assert_eq!(objects.get("k").await.unwrap(), None);
    objects.delete("k").await.unwrap();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    objects.put("a/k", Bytes::from_static(b"x"), PutOptions::default()).await.unwrap();
    assert_eq!(std::fs::read(root.path().join("bucket/a/k")).unwrap(), b"x");
}

#[tokio::test]
async fn deleting_leaves_no_empty_folders() {
    let root = tempfile::tempdir().unwrap();
    let objects = StoreObjects::local(root.path(), "bucket").unwrap();
    objects.put("users/1/v0/item.json", Bytes::new(), PutOptions::default()).await.unwrap();
    objects.delete("users/1/v0/item.json").await.unwrap();
    assert_eq!(std::fs::read_dir(root.path().join("bucket")).unwrap().count(), 0);
}

#[tokio::test]
async fn puts_and_deletes_side_by_side_never_fail_over_a_folder_that_comes_and_goes() {
    let root = tempfile::tempdir().unwrap();
    let objects = StoreObjects::local(root.path(), "bucket").unwrap();
    let work = (0..8).map(|writer| {
        let objects = objects.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let key = format!("shared/deep/{writer}");
                assert_eq!(
                    objects.put(&key, Bytes::new(), PutOptions::default()).await.unwrap(),
                    Put::Stored
                );
                objects.delete(&key).await.unwrap();
            }
        })
    });
    for done in futures::future::join_all(work).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_local_root_that_is_a_file_is_a_clear_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), b"").unwrap();
    let objects = StoreObjects::local(&root.path().join("file"), "bucket").unwrap();
    let error =
        objects.put("k", Bytes::new(), PutOptions::default()).await.expect_err("a file is not a folder");
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("file") && !error.is_retryable(), "{error}");
}

#[test]
fn bucket_names_cannot_leave_their_place() {
    for name in ["", "..", "a/b", "a\\b", ".hidden", "a..b", "a b", "-a", "b?c", &"x".repeat(64)] {
        assert_eq!(StoreObjects::memory(name).expect_err(name).kind(), ErrorKind::Validation, "{name}");
        assert_eq!(
            StoreObjects::local("folder".as_ref(), name).expect_err(name).kind(),
            ErrorKind::Validation,
            "{name}"
        );
    }
}

#[test]
fn connections_that_cannot_work_are_refused_before_any_request() {
    let connection =
        |endpoint: &str, access_key: &str| SpaceConnection::s3(endpoint, access_key, "not base64!");
    for (endpoint, access_key) in [
        ("ftp://host", "key"),
        ("https://user:hidden@host", "key"),
        ("https://host?a=b", "key"),
        ("https://", "key"),
        ("https://host", ""),
        ("https://host", "two\nlines"),
    ] {
        let error = StoreObjects::s3(&connection(endpoint, access_key), "bucket").expect_err(endpoint);
        assert_eq!(error.kind(), ErrorKind::Validation, "{endpoint}");
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
    let error = StoreObjects::azure(&connection("https://host", "account"), "bucket")
        .expect_err("the key is not base64");
    assert_eq!(error.message(), "the Azure account key is not base64");
    for endpoint in
        ["", "nyc3.digitaloceanspaces.com", "https://nyc3.digitaloceanspaces.com", "http://[::1]:9000/"]
    {
        StoreObjects::s3(&connection(endpoint, "key"), "bucket")
            .unwrap_or_else(|error| panic!("{endpoint}: {error}"));
    }
}
