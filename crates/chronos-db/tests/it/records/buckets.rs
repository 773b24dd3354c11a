//! Buckets that come, go and come back, and what the storage says to those who wait for it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chronos_db::objects::{PutOptions, StoreObjects};
use chronos_db::{Collection, ErrorKind, Json, json};
use futures::TryStreamExt as _;
use object_store::client::{
    ClientOptions, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector,
};
use test_support::{Selective, servers};

use super::pairing::{Kind, Pairing, Store, TIMEOUT, document, on_durable_pairings, refused};

on_durable_pairings!(a_bucket_that_is_gone_is_an_error_until_it_is_back, what_is_not_stored_yet_has_no_url);

/// A bucket that was removed from outside, with what was in it.
enum Away {
    Folder,
    Objects(Vec<(String, Bytes)>),
}

/// The other S3 server makes a bucket with any put.
fn strict(p: &Pairing) -> Json {
    if p.kind != Kind::ReplicaSetS3 {
        return json!({});
    }
    let s3 = servers::s3();
    let space = json!({ "provider": "s3", "endpoint": servers::moto_endpoint(), "accessKey": s3.access_key, "secretKey": s3.secret_key });
    json!({ "spacesConnections": { "objects": space } })
}

/// The bucket of a tenant without the library: it does not remove one.
struct Bucket<'p> {
    pairing: &'p Pairing,
    name: String,
}

impl Bucket<'_> {
    fn folders(&self) -> [std::path::PathBuf; 2] {
        let root = self.pairing.folder().join("objects");
        [root.join(&self.name), root.join("not mounted")]
    }

    fn connected(&self) -> StoreObjects {
        let config = self.pairing.config(&strict(self.pairing));
        let config = chronos_db::config::Config::parse(&config.to_string(), self.pairing.folder()).unwrap();
        let connection = &config.spaces["objects"];
        if self.pairing.kind == Kind::ReplicaSetS3 {
            StoreObjects::s3(connection, &self.name)
        } else {
            StoreObjects::azure(connection, &self.name)
        }
        .unwrap()
    }

    async fn take(&self, store: &Store) -> Away {
        if !self.pairing.kind.presigns() {
            let [here, away] = self.folders();
            std::fs::rename(here, away).unwrap();
            return Away::Folder;
        }
        let bucket = store.bucket();
        let listed: Vec<_> = bucket.list("").try_collect().await.unwrap();
        let mut objects = Vec::new();
        for object in listed {
            objects.push((object.key.clone(), bucket.get(&object.key).await.unwrap().unwrap()));
            bucket.delete(&object.key).await.unwrap();
        }
        self.remove().await;
        Away::Objects(objects)
    }

    /// Removes the empty bucket, by a request that we sign ourselves.
    async fn remove(&self) {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = object_store::signer::Method::DELETE;
        if self.pairing.kind == Kind::ReplicaSetS3 {
            let s3 = servers::s3();
            *request.uri_mut() = format!("{}/{}", servers::moto_endpoint(), self.name).parse().unwrap();
            let credential = object_store::aws::AwsCredential {
                key_id: s3.access_key,
                secret_key: s3.secret_key,
                token: None,
            };
            object_store::aws::AwsAuthorizer::new(&credential, "s3", "us-east-1")
                .try_authorize(&mut request, None)
                .unwrap();
        } else {
            let azure = servers::azure();
            *request.uri_mut() =
                format!("{}/{}?restype=container", azure.endpoint, self.name).parse().unwrap();
            let credential = object_store::azure::AzureCredential::AccessKey(
                object_store::azure::AzureAccessKey::try_new(&azure.key).unwrap(),
            );
            object_store::azure::AzureAuthorizer::new(&credential, &azure.account)
                .try_authorize(&mut request)
                .unwrap();
        }
        let client =
            ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
        let answer = client.execute(request).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    async fn bring_back(&self, away: Away) {
        match away {
            Away::Folder => {
                let [here, away] = self.folders();
                assert!(!here.exists(), "the folder was made anew");
                std::fs::rename(away, here).unwrap();
            }
            Away::Objects(objects) => {
                let bucket = self.connected();
                for (key, bytes) in objects {
                    chronos_db::objects::ObjectStorage::put(&bucket, &key, bytes, PutOptions::default())
                        .await
                        .unwrap();
                }
            }
        }
    }
}

async fn failing(users: &Collection) -> String {
    let begun = std::time::Instant::now();
    loop {
        let report = users.flush(Duration::from_millis(200)).await.unwrap();
        if let [failing] = &report.failing[..] {
            return failing.error.to_string();
        }
        assert!(begun.elapsed() < TIMEOUT, "nothing fails: {report:?}");
    }
}

async fn a_bucket_that_is_gone_is_an_error_until_it_is_back(p: &Pairing) {
    let more = strict(p);
    let first = p.open_with(&more).users();
    let early = first.create(json!({"n": 1})).ack_stored().await.unwrap().id;
    let store = p.opening().with(&more).without_cache().open();
    let users = store.users();
    assert!(users.get(&early).await.unwrap().is_some());
    let bucket = Bucket { pairing: p, name: p.common_database() };
    let away = bucket.take(&store).await;

    // Who had it open, and who comes now, note what waits and make nothing.
    assert_eq!(refused(users.get(&early).await), ErrorKind::Storage);
    for users in [&first, &p.open_with(&more).users()] {
        let id = users.create(json!({"n": 2})).await.unwrap().id;
        let said = failing(users).await;
        assert!(said.contains(&bucket.name) && said.contains("bring it back"), "{said}");
        assert_eq!(document(users, &id).await["n"], json!(2));
    }
    bucket.bring_back(away).await;
    for users in [&first, &users] {
        let begun = std::time::Instant::now();
        while users.flush(TIMEOUT).await.unwrap() != 0 {
            assert!(begun.elapsed() < TIMEOUT);
        }
    }
    assert_eq!(document(&users, &early).await["n"], json!(1));
}

async fn what_is_not_stored_yet_has_no_url(p: &Pairing) {
    let plan = Selective::new();
    let maps = json!({"collectionMaps": {"users": {"base64Props": {"file": {"contentType": "text/plain"}}}}});
    let users = p.opening().with(&maps).selective(&plan).open().users();
    plan.refuse("/");
    let id = users.create(json!({"file": STANDARD.encode("later")})).await.unwrap().id;
    let sign = || users.get(&id).presign(Duration::from_secs(60));
    if !p.kind.presigns() {
        assert_eq!(refused(sign().await), ErrorKind::PresignUnsupported);
        return plan.take_all();
    }
    let error = sign().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Storage
            && error.is_retryable()
            && error.to_string().contains("has no URL yet"),
        "{error}"
    );
    plan.take_all();
    while users.flush(TIMEOUT).await.unwrap() != 0 {}
    let url = sign().await.unwrap().unwrap().presigned[0].blob_url.clone();
    assert_eq!(reqwest::get(url).await.unwrap().text().await.unwrap(), "later");
}
