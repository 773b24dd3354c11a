//! What goes over the wire, seen by a server whose answers the test sets.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use parking_lot::Mutex;

use super::{ObjectStorage, ObjectsPool, Put, PutMode, PutOptions, SpaceId, StoreObjects};
use crate::ErrorKind;
use crate::config::{Buckets, Config, ObjectSpace, Provider, SpaceConnection};

const NO_BUCKET: (u16, &str) =
    (404, "<Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>");
const OK: (u16, &str) = (200, "");
/// No answer at all.
const SILENCE: (u16, &str) = (0, "");

/// Answers from a list, then always with 200, and remembers what it was asked.
#[derive(Clone, Debug, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// It tells its time, which is this many seconds ahead of ours.
    ahead: Option<i64>,
}

#[derive(Clone, Debug)]
struct Asked {
    line: String,
    authorization: String,
    create_only: bool,
    body: String,
}

impl Server {
    fn answering(answers: &[(u16, &'static str)]) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.iter().copied().collect())), ..Self::default() }
    }

    fn client(&self) -> HttpClient {
        HttpClient::new(self.clone())
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

#[async_trait]
impl HttpService for Server {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let header = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        self.asked.lock().push(Asked {
            line: format!("{} {}", request.method(), request.uri()),
            authorization: header("authorization"),
            create_only: header("if-none-match") == "*",
            body: request
                .body()
                .as_bytes()
                .map(|b| String::from_utf8_lossy(b).into_owned())
                .unwrap_or_default(),
        });
        let (status, body) = self.answers.lock().pop_front().unwrap_or(OK);
        if (status, body) == SILENCE {
            std::future::pending::<()>().await;
        }
        let mut response = HttpResponse::new(HttpResponseBody::from(body.to_owned()));
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().insert("content-length", body.len().into());
        response.headers_mut().insert("etag", "\"1\"".try_into().unwrap());
        response.headers_mut().insert("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT".try_into().unwrap());
        if let Some(ahead) = self.ahead {
            let time = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + ahead).unwrap();
            let date = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            response.headers_mut().insert("date", date.try_into().unwrap());
        }
        Ok(response)
    }
}

fn connection(provider: Provider, endpoint: &str, access_key: &str) -> SpaceConnection {
    SpaceConnection {
        provider,
        endpoint: endpoint.to_owned(),
        region: "eu-central-1".to_owned(),
        access_key: access_key.into(),
        secret_key: "c2VjcmV0LWtleQ==".into(),
        force_path_style: true,
    }
}

fn s3(server: &Server) -> StoreObjects {
    StoreObjects::s3_over(&connection(Provider::S3, "http://store.test", "AKEY"), "bucket", server.client())
        .unwrap()
}

fn azure(server: &Server) -> StoreObjects {
    StoreObjects::azure_over(
        &connection(Provider::Azure, "https://acc.blob.core.windows.net", "acc"),
        "bucket",
        server.client(),
    )
    .unwrap()
}

async fn create(objects: &StoreObjects) -> crate::Result<Put> {
    objects
        .put("k", Bytes::from_static(b"x"), PutOptions { mode: PutMode::Create, ..PutOptions::default() })
        .await
}

#[tokio::test]
async fn storing_an_object_is_one_put_and_nothing_else() {
    let server = Server::default();
    s3(&server).put("a/b c", Bytes::from_static(b"x"), PutOptions::default()).await.unwrap();
    assert_eq!(server.lines(), ["PUT http://store.test/bucket/a/b%20c"]);
    let server = Server::default();
    azure(&server).put("a/b", Bytes::from_static(b"x"), PutOptions::default()).await.unwrap();
    assert_eq!(server.lines(), ["PUT https://acc.blob.core.windows.net/bucket/a/b"]);
}

#[tokio::test]
async fn a_missing_bucket_is_created_and_the_put_repeated_once() {
    let server = Server::answering(&[NO_BUCKET, OK, OK]);
    assert_eq!(create(&s3(&server)).await.unwrap(), Put::Stored);
    assert_eq!(
        server.lines(),
        ["PUT http://store.test/bucket/k", "PUT http://store.test/bucket", "PUT http://store.test/bucket/k"]
    );
    assert!(server.asked().iter().all(|asked| asked.authorization.contains("Credential=AKEY/")));

    let server = Server::answering(&[NO_BUCKET, OK, NO_BUCKET]);
    assert_eq!(
        create(&s3(&server)).await.unwrap_err().kind(),
        ErrorKind::Storage,
        "it is not tried for ever"
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_bucket_on_amazon_is_created_in_its_region_and_named_in_the_host() {
    let server = Server::answering(&[NO_BUCKET]);
    let mut connection = connection(Provider::S3, "", "AKEY");
    connection.force_path_style = false;
    let objects = StoreObjects::s3_over(&connection, "bucket", server.client()).unwrap();
    create(&objects).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].line, "PUT https://bucket.s3.eu-central-1.amazonaws.com/k");
    assert_eq!(asked[1].line, "PUT https://bucket.s3.eu-central-1.amazonaws.com/");
    assert!(asked[1].body.contains("<LocationConstraint>eu-central-1<"), "{}", asked[1].body);
}

#[tokio::test]
async fn a_bucket_anywhere_is_created_in_the_region_of_its_connection() {
    let bad = (400, "<Error><Code>MalformedXML</Code></Error>");
    let server = Server::answering(&[NO_BUCKET, OK, OK]);
    create(&s3(&server)).await.unwrap();
    assert!(server.asked()[1].body.contains("<LocationConstraint>eu-central-1<"), "{:?}", server.asked());
    // One that knows no regions is asked without.
    let server = Server::answering(&[NO_BUCKET, bad, OK, OK]);
    create(&s3(&server)).await.unwrap();
    assert_eq!(server.lines()[1..3], ["PUT http://store.test/bucket"; 2]);
    assert_eq!(server.asked()[2].body, "");
    // Amazon's first region is the one that must not be named.
    for region in ["", "us-east-1"] {
        let server = Server::answering(&[NO_BUCKET, OK, OK]);
        let connection = connection(Provider::S3, "http://store.test", "AKEY").region(region);
        create(&StoreObjects::s3_over(&connection, "bucket", server.client()).unwrap()).await.unwrap();
        assert_eq!(server.asked()[1].body, "", "{region}");
    }
}

#[tokio::test]
async fn a_storage_without_conditional_puts_is_looked_at_instead() {
    let unsupported = (501, "<Error><Code>NotImplemented</Code><Message>If-None-Match</Message></Error>");
    let absent = (404, "<Error><Code>NoSuchKey</Code></Error>");
    let server = Server::answering(&[unsupported, absent]);
    let objects = s3(&server);
    assert_eq!(create(&objects).await.unwrap(), Put::Stored);
    // The body travels twice, and not as often as a server that is down is asked.
    let lines = [
        "PUT http://store.test/bucket/k",
        "HEAD http://store.test/bucket/k",
        "PUT http://store.test/bucket/k",
    ];
    assert_eq!(server.lines(), lines);
    assert_eq!(
        server.asked().iter().map(|asked| asked.create_only).collect::<Vec<_>>(),
        [true, false, false]
    );
    // What is known of it is not asked again, and what is there is left alone.
    assert_eq!(create(&objects).await.unwrap(), Put::Exists);
    assert_eq!(server.lines()[lines.len()..], ["HEAD http://store.test/bucket/k"]);
}

#[tokio::test]
async fn urls_live_by_the_clock_of_the_storage() {
    let seconds = |text: &str| text.split('&').next().unwrap().parse::<i64>().unwrap();
    let end = |url: &str| {
        let text = url.split_once("se=").unwrap().1.split('&').next().unwrap().replace("%3A", ":");
        text.parse::<jiff::Timestamp>().unwrap().as_second() - jiff::Timestamp::now().as_second()
    };
    let ttl = std::time::Duration::from_secs(60);
    for (ahead, s3_lives, azure_lives) in [(600, 660, 660), (-600, 60, -540), (3, 60, 60)] {
        let server = Server { ahead: Some(ahead), ..Server::default() };
        let (s3, azure) = (s3(&server), azure(&server));
        for objects in [&s3, &azure] {
            objects.head("k").await.unwrap().unwrap();
        }
        let url = s3.presign_get("k", ttl).await.unwrap();
        // Signed from now on by our clock: what that is behind comes on top.
        let lives = seconds(url.split_once("X-Amz-Expires=").unwrap().1);
        assert!((s3_lives - 2..=s3_lives + 2).contains(&lives), "{ahead}: {lives}");
        let lives = end(&azure.presign_get("k", ttl).await.unwrap());
        assert!((azure_lives - 3..=azure_lives + 3).contains(&lives), "{ahead}: {lives}");
    }
}

#[tokio::test]
async fn a_refused_creation_names_the_bucket_and_the_endpoint_and_repeats_no_credentials() {
    let refused = (
        403,
        "<Error><Code>AccessDenied</Code><Message>AKEY with c2VjcmV0LWtleQ== may not</Message></Error>",
    );
    let server = Server::answering(&[NO_BUCKET, refused]);
    let error = create(&s3(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(!error.is_retryable());
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("`bucket`") && shown.contains("http://store.test") && shown.contains("AccessDenied"),
        "{shown}"
    );
    assert!(!shown.contains("AKEY") && !shown.contains("c2VjcmV0LWtleQ=="), "{shown}");
}

#[tokio::test]
async fn an_open_race_is_looked_at_again_until_it_is_decided() {
    let open = (409, "<Error><Code>ConditionalRequestConflict</Code></Error>");
    let decided = (412, "<Error><Code>PreconditionFailed</Code></Error>");
    let server = Server::answering(&[open, open, decided]);
    assert_eq!(create(&s3(&server)).await.unwrap(), Put::Exists);
    assert!(server.asked().len() == 3 && server.asked().iter().all(|asked| asked.create_only));
    let server = Server::answering(&[open, OK]);
    assert_eq!(create(&s3(&server)).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn a_conflict_that_is_no_existing_object_is_never_taken_for_one() {
    let server = Server::answering(&[(409, "<Error><Code>ContainerBeingDeleted</Code></Error>")]);
    let error = create(&azure(&server)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let server = Server::answering(&[(409, "<Error><Code>BlobAlreadyExists</Code></Error>")]);
    assert_eq!(create(&azure(&server)).await.unwrap(), Put::Exists);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_is_silent_is_asked_again_for_what_may_be_asked_twice() {
    for repeats in [1, 2] {
        let server = Server::answering(&vec![SILENCE; repeats]);
        assert_eq!(azure(&server).get("k").await.unwrap().unwrap(), Bytes::new());
        assert_eq!(server.lines(), vec!["GET https://acc.blob.core.windows.net/bucket/k"; repeats + 1]);
    }
    let server = Server::answering(&[SILENCE]);
    s3(&server).delete("k").await.unwrap();
    assert_eq!(server.asked().len(), 2);
    let server = Server::answering(&[SILENCE]);
    s3(&server).put("k", Bytes::from_static(b"x"), PutOptions::default()).await.unwrap();
    assert_eq!(server.lines(), ["PUT http://store.test/bucket/k"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_stays_silent_is_an_error_that_may_pass() {
    let server = Server::answering(&[SILENCE; 4]);
    let error = s3(&server).get("k").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Storage && error.is_retryable(), "{error:?}");
    assert_eq!(server.asked().len(), 3);
    // A create that went unanswered may have been carried out, so its caller decides.
    let server = Server::answering(&[SILENCE]);
    assert!(create(&s3(&server)).await.unwrap_err().is_retryable());
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_presigned_azure_url_signs_the_plain_name_and_spells_it_encoded() {
    let url =
        azure(&Server::default()).presign_get("a b/ü", std::time::Duration::from_secs(60)).await.unwrap();
    assert!(url.starts_with("https://acc.blob.core.windows.net/bucket/a%20b/%C3%BC?sv="), "{url}");
}

fn config(spaces: &[(&str, SpaceConnection)]) -> Config {
    let spaces = spaces.iter().map(|(name, connection)| ((*name).to_owned(), connection.clone()));
    Config { spaces: spaces.collect(), ..Config::blank() }
}

fn space(connection: Option<&str>) -> ObjectSpace {
    ObjectSpace::new(connection.map(str::to_owned), Buckets::one("bucket"))
}

#[tokio::test]
async fn two_tenants_on_one_endpoint_each_sign_with_their_own_key() {
    let server = Server::default();
    let pool = ObjectsPool::with_http(server.client());
    let endpoint = "https://nyc3.store.test";
    let config = config(&[
        ("a", connection(Provider::S3, endpoint, "KEY-A")),
        ("b", connection(Provider::S3, endpoint, "KEY-B")),
    ]);
    for name in ["a", "b", "a"] {
        let objects = pool.objects(&config, &space(Some(name)), "bucket").unwrap();
        objects.put("k", Bytes::new(), PutOptions::default()).await.unwrap();
    }
    let signed: Vec<bool> =
        server.asked().iter().map(|asked| asked.authorization.contains("Credential=KEY-A/")).collect();
    assert_eq!(signed, [true, false, true]);
    let [a, b] = ["a", "b"].map(|name| SpaceId::of(&config, &space(Some(name))).unwrap());
    assert_ne!(a, b);
}

#[tokio::test]
async fn a_changed_secret_under_the_same_name_makes_a_new_client() {
    let pool = ObjectsPool::with_http(Server::default().client());
    let before = config(&[("a", connection(Provider::S3, "https://store.test", "KEY"))]);
    let mut after = before.clone();
    after.spaces.get_mut("a").unwrap().secret_key = "another".into();
    let [first, again, changed] =
        [&before, &before, &after].map(|config| pool.objects(config, &space(Some("a")), "bucket").unwrap());
    assert!(Arc::ptr_eq(&first, &again));
    assert!(!Arc::ptr_eq(&first, &changed));
    assert!(!format!("{pool:?}").contains("another"));
}

#[tokio::test]
async fn a_pool_shares_one_memory_per_bucket_and_two_pools_share_none() {
    let config = config(&[("m", connection(Provider::Memory, "", ""))]);
    let (pool, other) = (ObjectsPool::new(), ObjectsPool::new());
    let open = |pool: &ObjectsPool, bucket: &str| pool.objects(&config, &space(Some("m")), bucket).unwrap();
    open(&pool, "one").put("k", Bytes::from_static(b"x"), PutOptions::default()).await.unwrap();
    assert!(open(&pool, "one").get("k").await.unwrap().is_some());
    assert!(open(&pool, "two").get("k").await.unwrap().is_none());
    assert!(open(&other, "one").get("k").await.unwrap().is_none());
}

#[tokio::test]
async fn spaces_without_a_connection_lie_in_the_local_folder() {
    let root = tempfile::tempdir().unwrap();
    let mut config = config(&[]);
    let pool = ObjectsPool::new();
    assert_eq!(pool.objects(&config, &space(None), "bucket").unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(
        pool.objects(&config, &space(Some("gone")), "bucket").unwrap_err().kind(),
        ErrorKind::Validation
    );
    config.local_storage = Some(root.path().to_owned());
    pool.objects(&config, &space(None), "bucket")
        .unwrap()
        .put("k", Bytes::new(), PutOptions::default())
        .await
        .unwrap();
    assert!(root.path().join("bucket/k").is_file());
}
