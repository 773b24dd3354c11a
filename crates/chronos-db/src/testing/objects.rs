//! What every [`ObjectStorage`] must do.
//!
//! Each function takes a bucket that doesn't exist yet and that nobody else uses, and panics if a promise is
//! broken. [`crate::objects_suite!`] stamps them onto a backend as tests:
//!
//! ```text
//! async fn memory() -> (Arc<dyn ObjectStorage>, ()) {
//!     (Arc::new(StoreObjects::memory("bucket").unwrap()), ())
//! }
//! chronos_db::objects_suite!(memory: basics, races, without_presigning);
//! ```
//!
//! The second part of what the function returns is kept until the test ends, such as the guard of a temporary
//! folder.

// A suite fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::objects::{ObjectInfo, ObjectStorage, Put, PutMode, PutOptions};
use crate::{ErrorKind, Timestamp};

/// Makes a module of tests out of groups of the suite and a function that opens a new bucket.
///
/// `basics` holds what every backend can do, `races` what needs an atomic create, `presigning` or
/// `without_presigning` what it does about URLs.
#[macro_export]
macro_rules! objects_suite {
    ($open:ident: $($group:ident),+ $(,)?) => {
        mod $open {
            $($crate::objects_suite!(@$group $open);)+
        }
    };
    (@basics $open:ident) => {
        $crate::objects_suite!(@tests $open:
            what_was_put_is_read_back_until_it_is_deleted,
            any_bytes_come_back_as_they_were,
            an_empty_object_is_an_object,
            an_object_of_8_mib_comes_back_whole,
            an_overwrite_replaces_the_bytes,
            a_create_leaves_what_is_there_alone,
            a_range_is_these_bytes_and_no_others,
            what_is_not_there_reads_as_nothing,
            what_is_deleted_twice_is_no_error,
            a_listing_pages_through_everything_below_its_prefix,
            a_prefix_matches_whole_segments_only,
            unusual_keys_round_trip,
            unusable_keys_are_refused,
            a_media_type_can_be_given_and_a_broken_one_is_refused,
            racing_first_puts_create_the_missing_bucket_once,
            a_bucket_is_there_once_it_was_created,
        );
    };
    (@races $open:ident) => {
        $crate::objects_suite!(@tests $open: sixteen_racing_creates_have_one_winner);
    };
    (@presigning $open:ident) => {
        $crate::objects_suite!(@tests $open:
            a_presigned_url_gives_the_object_to_anybody,
            a_tampered_url_is_refused,
            a_presigned_url_expires,
            a_presigned_url_lives_from_a_second_to_a_week,
        );
    };
    (@without_presigning $open:ident) => {
        $crate::objects_suite!(@tests $open: there_are_no_presigned_urls);
    };
    (@tests $open:ident: $($test:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                let (objects, _guard) = super::$open().await;
                $crate::testing::objects::$test(objects).await;
            }
        )+
    };
}

/// Put, get, head, list and delete agree with each other.
pub async fn what_was_put_is_read_back_until_it_is_deleted(objects: Arc<dyn ObjectStorage>) {
    let key = "users/65f0a1b2c3d4e5f607182930/v0/item.json";
    assert_eq!(put(&objects, key, "{\"a\":1}").await, Put::Stored);
    assert_eq!(objects.get(key).await.unwrap().as_deref(), Some(b"{\"a\":1}".as_slice()));
    let info = objects.head(key).await.unwrap().expect("the object has a head");
    assert_eq!((info.key.as_str(), info.size), (key, 7));
    assert!(info.modified > Timestamp::parse("2020-01-01").unwrap(), "{info:?}");
    assert_eq!(list(&objects, "users/").await, BTreeMap::from([(key.to_owned(), 7)]));
    objects.delete(key).await.unwrap();
    assert_eq!(objects.get(key).await.unwrap(), None);
    assert_eq!(objects.head(key).await.unwrap(), None);
    assert!(list(&objects, "users/").await.is_empty());
}

/// Bytes that are not text.
pub async fn any_bytes_come_back_as_they_were(objects: Arc<dyn ObjectStorage>) {
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    objects.put("binary", body.clone().into(), PutOptions::default()).await.unwrap();
    assert!(objects.get("binary").await.unwrap().expect("it was put") == body);
}

/// No bytes are something else than no object.
pub async fn an_empty_object_is_an_object(objects: Arc<dyn ObjectStorage>) {
    assert_eq!(put(&objects, "empty", "").await, Put::Stored);
    assert_eq!(objects.get("empty").await.unwrap(), Some(Bytes::new()));
    assert_eq!(objects.head("empty").await.unwrap().map(|info| info.size), Some(0));
}

/// Large bodies.
pub async fn an_object_of_8_mib_comes_back_whole(objects: Arc<dyn ObjectStorage>) {
    let body: Bytes = (0..8 * 1024 * 1024_u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    objects.put("large", body.clone(), PutOptions::default()).await.unwrap();
    assert!(objects.get("large").await.unwrap().expect("it was put") == body);
}

/// [`PutMode::Overwrite`].
pub async fn an_overwrite_replaces_the_bytes(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "k", "the first and longer one").await;
    assert_eq!(put(&objects, "k", "second").await, Put::Stored);
    assert_eq!(objects.get("k").await.unwrap().as_deref(), Some(b"second".as_slice()));
}

/// [`PutMode::Create`] on what is there.
pub async fn a_create_leaves_what_is_there_alone(objects: Arc<dyn ObjectStorage>) {
    assert_eq!(create(&objects, "k", "first").await, Put::Stored);
    assert_eq!(create(&objects, "k", "second").await, Put::Exists);
    assert_eq!(objects.get("k").await.unwrap().as_deref(), Some(b"first".as_slice()));
}

/// Reading a part.
pub async fn a_range_is_these_bytes_and_no_others(objects: Arc<dyn ObjectStorage>) {
    assert_eq!(objects.get_range("k", 0..1).await.unwrap(), None);
    put(&objects, "k", "0123456789").await;
    for (range, part) in [(0..10, "0123456789"), (0..1, "0"), (3..7, "3456"), (9..10, "9"), (4..4, "")] {
        assert_eq!(objects.get_range("k", range).await.unwrap().as_deref(), Some(part.as_bytes()));
    }
    for beyond in [8..11, 10..12] {
        assert_eq!(objects.get_range("k", beyond).await.unwrap_err().kind(), ErrorKind::Storage);
    }
    assert_eq!(objects.get_range("missing", 0..1).await.unwrap(), None);
}

/// In a bucket that isn't there, and in one that is.
pub async fn what_is_not_there_reads_as_nothing(objects: Arc<dyn ObjectStorage>) {
    for _ in 0..2 {
        assert_eq!(objects.get("missing/key").await.unwrap(), None);
        assert_eq!(objects.head("missing/key").await.unwrap(), None);
        assert!(list(&objects, "missing/").await.is_empty());
        put(&objects, "present", "x").await;
    }
}

/// Delete is idempotent, also before the bucket is there.
pub async fn what_is_deleted_twice_is_no_error(objects: Arc<dyn ObjectStorage>) {
    objects.delete("k").await.unwrap();
    put(&objects, "k", "x").await;
    objects.delete("k").await.unwrap();
    objects.delete("k").await.unwrap();
    assert_eq!(put(&objects, "k", "again").await, Put::Stored);
}

/// More keys than a storage answers at once.
pub async fn a_listing_pages_through_everything_below_its_prefix(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "other/object", "x").await;
    let keys: BTreeSet<String> = (0..1_100).map(|n| format!("many/{n:04}/item.json")).collect();
    let puts = keys.iter().map(|key| put(&objects, key, "x")).collect::<Vec<_>>();
    futures::stream::iter(puts)
        .buffer_unordered(32)
        .for_each(|done| async move { assert_eq!(done, Put::Stored) })
        .await;
    let listed: Vec<ObjectInfo> = objects.list("many/").try_collect().await.unwrap();
    assert_eq!(listed.len(), keys.len(), "nothing is listed twice");
    assert_eq!(listed.into_iter().map(|info| info.key).collect::<BTreeSet<_>>(), keys);
    assert_eq!(list(&objects, "").await.len(), keys.len() + 1, "the empty prefix is the whole bucket");
}

/// `a/b` is not a prefix of `a/bc/…`, with or without a slash at its end.
pub async fn a_prefix_matches_whole_segments_only(objects: Arc<dyn ObjectStorage>) {
    for key in ["users/1/a", "users/1/b/c", "users/10/a", "users2/1/a"] {
        put(&objects, key, "x").await;
    }
    for prefix in ["users/1", "users/1/"] {
        let found: Vec<String> = list(&objects, prefix).await.into_keys().collect();
        assert_eq!(found, ["users/1/a", "users/1/b/c"], "{prefix}");
    }
}

/// Characters that URLs and file names treat specially.
pub async fn unusual_keys_round_trip(objects: Arc<dyn ObjectStorage>) {
    let keys = [
        "a b/c  d",
        "größe/日本語/🚀",
        "100%/%41/%2F",
        "a+b/c&d=e?f#g",
        "q'uo\"te/[x]/{y}/~z^|`<>*:;,@!$()",
        ".hidden/a..b",
    ];
    for (key, body) in keys.iter().zip(["0", "1", "2", "3", "4", "5"]) {
        assert_eq!(put(&objects, key, body).await, Put::Stored, "{key}");
    }
    for (key, body) in keys.iter().zip(["0", "1", "2", "3", "4", "5"]) {
        assert_eq!(objects.get(key).await.unwrap().as_deref(), Some(body.as_bytes()), "{key}");
        assert_eq!(objects.head(key).await.unwrap().map(|info| info.key).as_deref(), Some(*key));
    }
    let listed: BTreeSet<String> = list(&objects, "").await.into_keys().collect();
    assert_eq!(listed, keys.iter().map(ToString::to_string).collect());
    for key in keys {
        objects.delete(key).await.unwrap();
        assert_eq!(objects.get(key).await.unwrap(), None, "{key}");
    }
}

/// What one storage would change or refuse, all of them refuse.
pub async fn unusable_keys_are_refused(objects: Arc<dyn ObjectStorage>) {
    let long = format!("a/{}", "x".repeat(300));
    for key in ["", "/a", "a/", "a//b", "a/../b", "./a", "a\\b", "a\nb", "a\0b", "a./b", "k#1", &long] {
        let refused = objects.put(key, Bytes::new(), PutOptions::default()).await.expect_err(key);
        assert_eq!(refused.kind(), ErrorKind::Validation, "{key:?}");
        assert_eq!(objects.get(key).await.expect_err(key).kind(), ErrorKind::Validation, "{key:?}");
    }
}

/// Media types are headers.
pub async fn a_media_type_can_be_given_and_a_broken_one_is_refused(objects: Arc<dyn ObjectStorage>) {
    let typed = |content_type: &str| PutOptions {
        content_type: Some(content_type.to_owned()),
        ..PutOptions::default()
    };
    assert_eq!(
        objects.put("k", "{}".into(), typed("application/json; charset=utf-8")).await.unwrap(),
        Put::Stored
    );
    let refused = objects
        .put("k", "[]".into(), typed("application/json\r\nx-evil: 1"))
        .await
        .expect_err("a line break in a header");
    assert_eq!(refused.kind(), ErrorKind::Validation);
    assert_eq!(objects.get("k").await.unwrap().as_deref(), Some(b"{}".as_slice()));
}

/// The first puts of a new bucket, all at once.
pub async fn racing_first_puts_create_the_missing_bucket_once(objects: Arc<dyn ObjectStorage>) {
    let keys: Vec<String> = (0..8).map(|n| format!("first/{n}")).collect();
    let done = futures::future::join_all(keys.iter().map(|key| put(&objects, key, "x"))).await;
    assert!(done.into_iter().all(|put| put == Put::Stored));
    assert_eq!(list(&objects, "first/").await.len(), 8);
}

/// Looked at before and after it was created, twice, and after an object was put.
pub async fn a_bucket_is_there_once_it_was_created(objects: Arc<dyn ObjectStorage>) {
    objects.bucket_exists().await.unwrap();
    for _ in 0..2 {
        objects.create_bucket().await.unwrap();
        assert!(objects.bucket_exists().await.unwrap());
    }
    assert_eq!(put(&objects, "k", "x").await, Put::Stored);
    objects.create_bucket().await.unwrap();
    assert_eq!(objects.get("k").await.unwrap().as_deref(), Some(b"x".as_slice()), "what is in it stays");
}

/// [`PutMode::Create`] decides a race.
pub async fn sixteen_racing_creates_have_one_winner(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "warm-up", "x").await;
    for round in 0..8 {
        let key = format!("race/{round}");
        let bodies: Vec<String> = (0..16).map(|n| format!("writer {n}")).collect();
        let outcomes =
            futures::future::join_all(bodies.iter().map(|body| create(&objects, &key, body))).await;
        let winners: Vec<&String> = outcomes
            .iter()
            .zip(&bodies)
            .filter(|(outcome, _)| **outcome == Put::Stored)
            .map(|(_, body)| body)
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        assert_eq!(objects.get(&key).await.unwrap().as_deref(), Some(winners[0].as_bytes()));
    }
}

/// No credentials but the URL, also for keys that need encoding.
#[cfg(any(feature = "s3", feature = "azure"))]
pub async fn a_presigned_url_gives_the_object_to_anybody(objects: Arc<dyn ObjectStorage>) {
    for key in ["users/1/v0/item.json", "files/a b/größe 100%.txt"] {
        put(&objects, key, "for everybody").await;
        let url = objects.presign_get(key, Duration::from_secs(60)).await.unwrap();
        assert_eq!(http::get(&url).await, (200, b"for everybody".as_slice().into()), "{key}");
    }
}

/// A URL is good for its own object and time only.
#[cfg(any(feature = "s3", feature = "azure"))]
pub async fn a_tampered_url_is_refused(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "a/mine", "mine").await;
    put(&objects, "a/others", "others").await;
    let url = objects.presign_get("a/mine", Duration::from_secs(60)).await.unwrap();
    let (status, body) = http::get(&url.replace("a/mine", "a/others")).await;
    assert!((400..500).contains(&status) && !body.windows(6).any(|part| part == b"others"), "{status}");
    let (unsigned, _) = url.split_once('?').expect("a presigned URL has a query");
    let (status, _) = http::get(unsigned).await;
    assert!((400..500).contains(&status), "{status} without a signature");
}

/// A URL of one second is refused soon after.
#[cfg(any(feature = "s3", feature = "azure"))]
pub async fn a_presigned_url_expires(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "k", "x").await;
    let url = objects.presign_get("k", Duration::from_secs(1)).await.unwrap();
    let refused = async {
        while http::get(&url).await.0 == 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("the URL still works a minute later");
    assert!((400..500).contains(&http::get(&url).await.0));
}

/// The bounds of a life.
pub async fn a_presigned_url_lives_from_a_second_to_a_week(objects: Arc<dyn ObjectStorage>) {
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    for ttl in [Duration::ZERO, Duration::from_millis(999), week + Duration::from_secs(1)] {
        assert_eq!(
            objects.presign_get("k", ttl).await.expect_err("out of bounds").kind(),
            ErrorKind::Validation,
            "{ttl:?}"
        );
    }
    for ttl in [Duration::from_secs(1), week] {
        assert!(objects.presign_get("k", ttl).await.unwrap().starts_with("http"), "{ttl:?}");
    }
}

/// Storages without URLs say so.
pub async fn there_are_no_presigned_urls(objects: Arc<dyn ObjectStorage>) {
    put(&objects, "k", "x").await;
    let refused = objects.presign_get("k", Duration::from_secs(60)).await.expect_err("no URLs here");
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::PresignUnsupported, "PRESIGN_UNSUPPORTED"));
}

async fn put(objects: &Arc<dyn ObjectStorage>, key: &str, body: &str) -> Put {
    let done = objects.put(key, body.as_bytes().to_vec().into(), PutOptions::default()).await;
    done.unwrap_or_else(|error| panic!("put of {key}: {error}"))
}

async fn create(objects: &Arc<dyn ObjectStorage>, key: &str, body: &str) -> Put {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let done = objects.put(key, body.as_bytes().to_vec().into(), options).await;
    done.unwrap_or_else(|error| panic!("create of {key}: {error}"))
}

async fn list(objects: &Arc<dyn ObjectStorage>, prefix: &str) -> BTreeMap<String, u64> {
    objects.list(prefix).map_ok(|info| (info.key, info.size)).try_collect().await.unwrap()
}

#[cfg(any(feature = "s3", feature = "azure"))]
mod http {
    use bytes::Bytes;
    use object_store::ClientOptions;
    use object_store::client::{HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};

    /// A plain GET: its status and body.
    pub(super) async fn get(url: &str) -> (u16, Bytes) {
        crate::crypto::install_crypto_provider();
        let client =
            ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().unwrap();
        let response = client.execute(request).await.unwrap();
        (response.status().as_u16(), response.into_body().bytes().await.unwrap())
    }
}
