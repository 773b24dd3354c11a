//! What calls of an object storage cost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{Gauge, Spent, in_proportion, same, spent};
use crate::objects::{ObjectStorage, Put, PutMode, PutOptions};

/// Objects of the small bucket; the large one has a hundred times as many.
const FEW: usize = 10;
/// Objects below the prefix that is listed.
const BELOW: usize = 5;

/// Makes a module of tests, one per promise of [`testing::costs::objects`](crate::testing::costs::objects).
/// The second argument is an expression that yields a future of an `Arc<dyn ObjectStorage>`, a new bucket,
/// with the `Arc<dyn Gauge>` that counts what goes to its server and whatever must be kept until the test
/// ends; it is evaluated twice per test.
#[macro_export]
macro_rules! objects_costs {
    ($module:ident, $make:expr) => {
        $crate::objects_costs!(@tests $module, $make,
            a_call_costs_the_same_in_a_large_bucket,
            a_listing_costs_what_lies_below_its_prefix,
        );
    };
    (@tests $module:ident, $make:expr, $($name:ident),+ $(,)?) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let ((small, gauge_of_small, _small), (large, gauge_of_large, _large)) = ($make.await, $make.await);
                    ::chronos_db::testing::costs::objects::$name((small, gauge_of_small), (large, gauge_of_large)).await;
                }
            )+
        }
    };
}

/// A bucket, and what counts its requests.
pub type Bucket = (Arc<dyn ObjectStorage>, Arc<dyn Gauge>);

async fn fill((objects, _): &Bucket, count: usize) {
    let keys = (0..count)
        .map(|n| format!("collection/item-{n:06}/v0/item.json"))
        .chain((0..BELOW).map(|n| format!("other/{n}/item.json")));
    let puts = keys
        .map(|key| async move { objects.put(&key, Bytes::from(vec![7; 200]), PutOptions::default()).await });
    let _: Vec<Put> = futures::stream::iter(puts).buffer_unordered(4).try_collect().await.unwrap();
}

async fn filled(small: &Bucket, large: &Bucket) {
    futures::future::join(fill(small, FEW), fill(large, FEW * 100)).await;
}

/// Puts, conditional ones too, gets, heads, deletes and, where there are any, URLs.
pub async fn a_call_costs_the_same_in_a_large_bucket(small: Bucket, large: Bucket) {
    filled(&small, &large).await;
    let key = |n: i32| format!("collection/item-00000{n}/v0/item.json");
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let calls = async |bucket: &Bucket| {
        let (objects, gauge) = (&*bucket.0, &*bucket.1);
        let put = |key: String, options: PutOptions| async move {
            objects.put(&key, Bytes::from(vec![8; 200]), options).await.unwrap()
        };
        let spent: [(&str, Spent); 10] = [
            (
                "a put",
                spent(gauge, "", async |n| assert_eq!(put(key(n), PutOptions::default()).await, Put::Stored))
                    .await,
            ),
            (
                "a create",
                spent(gauge, "", async |n| {
                    assert_eq!(put(format!("new/{n}"), create.clone()).await, Put::Stored)
                })
                .await,
            ),
            (
                "a create of what is there",
                spent(gauge, "", async |n| assert_eq!(put(key(n), create.clone()).await, Put::Exists)).await,
            ),
            (
                "a get",
                spent(gauge, "", async |n| {
                    assert_eq!(objects.get(&key(n)).await.unwrap().unwrap().len(), 200)
                })
                .await,
            ),
            (
                "a get of nothing",
                spent(gauge, "", async |_| assert_eq!(objects.get("none").await.unwrap(), None)).await,
            ),
            (
                "a head",
                spent(gauge, "", async |n| assert!(objects.head(&key(n)).await.unwrap().is_some())).await,
            ),
            (
                "a head of nothing",
                spent(gauge, "", async |_| assert_eq!(objects.head("none").await.unwrap(), None)).await,
            ),
            (
                "a look at the bucket",
                spent(gauge, "", async |_| assert!(objects.bucket_exists().await.unwrap())).await,
            ),
            // Where there are no URLs, saying so costs nothing either.
            (
                "a URL",
                spent(gauge, "", async |n| drop(objects.presign_get(&key(n), Duration::from_secs(60)).await))
                    .await,
            ),
            ("a delete", spent(gauge, "", async |n| objects.delete(&key(n)).await.unwrap()).await),
        ];
        spent
    };
    for ((what, few), (_, many)) in calls(&small).await.into_iter().zip(calls(&large).await) {
        same(what, few, many);
        let most = if what == "a URL" { 0 } else { 1 };
        assert!(many.requests <= most, "{what} takes one request at most: {many:?}");
    }
}

/// And a whole one in proportion.
pub async fn a_listing_costs_what_lies_below_its_prefix(small: Bucket, large: Bucket) {
    filled(&small, &large).await;
    let list = async |bucket: &Bucket, prefix: &str, found: usize| {
        spent(&*bucket.1, "", async |_| {
            assert_eq!(bucket.0.list(prefix).try_collect::<Vec<_>>().await.unwrap().len(), found)
        })
        .await
    };
    same("what lies below a prefix", list(&small, "other", BELOW).await, list(&large, "other", BELOW).await);
    same("nothing", list(&small, "none", 0).await, list(&large, "none", 0).await);
    let (few, many) = (list(&small, "collection", FEW).await, list(&large, "collection", FEW * 100).await);
    in_proportion("everything", few, many);
    // Listings come in pages of a thousand at least.
    assert!(many.requests <= 3, "{many:?}");
}
