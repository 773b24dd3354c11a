//! What a process remembers.

// Helpers of tests fail by panicking, too.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ErrorKind;

#[tokio::test]
async fn what_is_remembered_of_a_subscription_goes_when_others_remove_it() {
    let config = || RedisConfig::single(test_support::servers::redis_url());
    let (hot, other) =
        (RedisHot::connect(config()).await.unwrap(), RedisHot::connect(config()).await.unwrap());
    let scope = Scope::new(&test_support::servers::unique_name("tenant"), "ns").unwrap();
    let topic = TopicName::new(&scope, "t").unwrap();
    let subscription = SubscriptionName::new(&topic, "s").unwrap();
    let remembered = || {
        let filters = hot.filters.lock().len();
        (filters, hot.left.lock().len())
    };
    let filter = chronos_db::json!({ "payload.n": { "$gt": 1 } });
    let patch = SubscriptionPatch::default().filter(Some(filter));
    hot.ensure_topic(&topic, &TopicPatch::default().shards(3)).await.unwrap();
    for shows_it in ["pull", "wait"] {
        hot.ensure_subscription(&subscription, &patch).await.unwrap();
        assert!(hot.pull(&subscription, 1).await.unwrap().deliveries.is_empty());
        hot.wait(&subscription, Duration::from_millis(20)).await.unwrap();
        assert_eq!(remembered(), (1, 1));
        assert!(other.delete_subscription(&subscription).await.unwrap());
        let gone = match shows_it {
            "pull" => hot.pull(&subscription, 1).await.map(drop),
            _ => hot.wait(&subscription, Duration::from_millis(20)).await,
        };
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(remembered(), (0, 0), "{shows_it}");
    }
}
