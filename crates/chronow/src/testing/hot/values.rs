//! Shared memory: values, versions, numbers, times.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bytes::Bytes;

use super::{kind, until};
use crate::hot::{HotTier, Incremented, Precondition, Value};
use crate::{ErrorKind, Scope};

/// Shared memory of a new scope.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) hot: Arc<dyn HotTier>,
    pub(super) scope: Scope,
}

impl Memory {
    pub(super) fn new(hot: Arc<dyn HotTier>) -> Self {
        Self { hot, scope: Scope::new("suite", &ObjectId::new().to_hex()).unwrap() }
    }

    pub(super) async fn get(&self, key: &str) -> Option<Value> {
        self.hot.get(&self.scope, &[key.to_owned()]).await.unwrap().remove(0)
    }

    pub(super) async fn bytes(&self, key: &str) -> Option<Bytes> {
        self.get(key).await.and_then(|value| value.bytes)
    }

    pub(super) async fn set_when(&self, key: &str, bytes: &str, when: Precondition) -> Option<u64> {
        self.hot
            .set(&self.scope, key, Some(Bytes::copy_from_slice(bytes.as_bytes())), "", None, when)
            .await
            .unwrap()
    }

    pub(super) async fn set(&self, key: &str, bytes: &str) -> u64 {
        self.set_when(key, bytes, Precondition::Always).await.unwrap()
    }

    pub(super) async fn set_for(&self, key: &str, bytes: &str, millis: u64) -> u64 {
        let (bytes, ttl) = (Bytes::copy_from_slice(bytes.as_bytes()), Duration::from_millis(millis));
        self.hot
            .set(&self.scope, key, Some(bytes), "", Some(ttl), Precondition::Always)
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) async fn tombstone(&self, key: &str) -> u64 {
        self.hot.set(&self.scope, key, None, "", None, Precondition::Always).await.unwrap().unwrap()
    }

    pub(super) async fn add(&self, key: &str, by: i64) -> Incremented {
        self.hot.increment(&self.scope, key, by, None).await.unwrap()
    }
}

/// A value is read back as it was, with its media type.
pub async fn a_value_is_read_back_as_it_was(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let all = Bytes::from((0..=255).collect::<Vec<u8>>());
    for (key, bytes, content_type) in [
        ("binary", all, "x/y"),
        ("empty", Bytes::new(), ""),
        ("json", Bytes::from_static(b"null"), "application/json"),
    ] {
        let version = memory
            .hot
            .set(&memory.scope, key, Some(bytes.clone()), content_type, None, Precondition::Always)
            .await
            .unwrap();
        let expected = Value {
            bytes: Some(bytes),
            content_type: content_type.to_owned(),
            version: version.unwrap(),
            ttl: None,
        };
        assert_eq!(memory.get(key).await, Some(expected), "{key}");
    }
    assert_eq!(memory.get("absent").await, None);
}

/// Values come in the order of their keys, as often as asked for.
pub async fn values_come_in_the_order_of_their_keys(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set("a", "1").await;
    memory.set("b", "2").await;
    let keys = ["b", "absent", "a", "b"].map(str::to_owned);
    let values = memory.hot.get(&memory.scope, &keys).await.unwrap();
    let bytes: Vec<_> = values.into_iter().map(|value| value.and_then(|value| value.bytes)).collect();
    assert_eq!(bytes, [Some("2".into()), None, Some("1".into()), Some("2".into())] as [Option<Bytes>; 4]);
    assert!(memory.hot.get(&memory.scope, &[]).await.unwrap().is_empty());
}

/// Versions grow with every change.
pub async fn versions_grow_with_every_change(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let mut last = 0;
    for n in 0..4 {
        let version = if n == 2 { memory.tombstone("k").await } else { memory.set("k", "same").await };
        assert!(version > last);
        assert_eq!(memory.get("k").await.unwrap().version, version);
        last = version;
    }
    let first = memory.set("number", "1").await;
    let Incremented { version, .. } = memory.add("number", 1).await;
    assert_eq!(memory.get("number").await.unwrap().version, version);
    assert!(version > first);
}

/// A value is set only if absent.
pub async fn a_value_is_set_only_if_absent(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    assert!(memory.set_when("k", "first", Precondition::Absent).await.is_some());
    assert_eq!(memory.set_when("k", "second", Precondition::Absent).await, None);
    assert_eq!(memory.bytes("k").await, Some("first".into()));
    memory.set_for("short", "x", 100).await;
    until("the value expires and can be set again", || async {
        memory.set_when("short", "y", Precondition::Absent).await.is_some()
    })
    .await;
    assert_eq!(memory.bytes("short").await, Some("y".into()));
}

/// A value is swapped only at its version.
pub async fn a_value_is_swapped_only_at_its_version(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    assert_eq!(memory.set_when("k", "x", Precondition::Version(1)).await, None, "there is none");
    assert_eq!(memory.get("k").await, None);
    let first = memory.set("k", "a").await;
    let second = memory.set_when("k", "b", Precondition::Version(first)).await.unwrap();
    assert_eq!(memory.set_when("k", "c", Precondition::Version(first)).await, None);
    assert_eq!(memory.set_when("k", "c", Precondition::Version(second + 7)).await, None);
    assert_eq!(memory.bytes("k").await, Some("b".into()));
    let gone =
        memory.hot.set(&memory.scope, "k", None, "", None, Precondition::Version(second)).await.unwrap();
    assert!(gone.unwrap() > second);
    assert_eq!(memory.bytes("k").await, None);
}

/// Of concurrent swaps of one version one wins.
pub async fn of_concurrent_swaps_one_wins(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let version = memory.set("k", "start").await;
    let swaps = (0..12).map(|n| {
        let memory = memory.clone();
        tokio::spawn(async move {
            memory.set_when("k", &n.to_string(), Precondition::Version(version)).await.map(|_| n.to_string())
        })
    });
    let won: Vec<_> = futures::future::join_all(swaps).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(memory.bytes("k").await, Some(Bytes::from(won[0].clone())));
}

/// A tombstone is not a value, but known.
pub async fn a_tombstone_is_no_value_but_known(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    assert!(memory.set_when("fresh", "refilled", Precondition::Unknown).await.is_some());
    assert_eq!(memory.set_when("fresh", "again", Precondition::Unknown).await, None);
    memory.set("k", "a").await;
    let tombstone = memory.tombstone("k").await;
    let value = memory.get("k").await.unwrap();
    assert_eq!((value.bytes, value.version), (None, tombstone));
    assert_eq!(
        memory.set_when("k", "refilled", Precondition::Unknown).await,
        None,
        "a tombstone wins over what is older"
    );
    assert!(memory.set_when("k", "b", Precondition::Absent).await.unwrap() > tombstone);
    assert_eq!(memory.bytes("k").await, Some("b".into()));
    let known = memory.tombstone("never set").await;
    assert_eq!(memory.get("never set").await.unwrap().version, known);
    assert_eq!(memory.set_when("never set", "refilled", Precondition::Unknown).await, None);
    let short = Duration::from_millis(100);
    memory.hot.set(&memory.scope, "short", None, "", Some(short), Precondition::Always).await.unwrap();
    until("the tombstone expires", || async { memory.get("short").await.is_none() }).await;
    assert!(memory.set_when("short", "refilled", Precondition::Unknown).await.is_some());
}

/// Removing forgets tombstones, too, and says whether there was a value.
pub async fn removing_forgets_tombstones_too(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set("k", "a").await;
    assert!(memory.hot.remove(&memory.scope, "k").await.unwrap());
    assert!(!memory.hot.remove(&memory.scope, "k").await.unwrap());
    assert_eq!(memory.get("k").await, None);
    assert!(memory.set_when("k", "b", Precondition::Unknown).await.is_some());
    memory.tombstone("k").await;
    assert!(!memory.hot.remove(&memory.scope, "k").await.unwrap());
    assert_eq!(memory.get("k").await, None);
    assert!(memory.set_when("k", "c", Precondition::Unknown).await.is_some());
}

/// A value expires, and is gone at once.
pub async fn a_value_expires(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let begun = std::time::Instant::now();
    memory.set_for("k", "a", 300).await;
    memory.set_for("long", "b", 3_600_000).await;
    let left = memory.get("long").await.unwrap().ttl.unwrap();
    assert!(left <= Duration::from_secs(3_600) && left > Duration::from_secs(3_000), "{left:?}");
    until("the value expires", || async { memory.get("k").await.is_none() }).await;
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert!(!memory.hot.remove(&memory.scope, "k").await.unwrap());
    assert!(!memory.hot.expire(&memory.scope, "k", Duration::from_secs(9)).await.unwrap());
}

/// A version that was given out never comes again for its key, however the value ends; so the holder of an
/// old one changes nothing.
pub async fn a_version_never_comes_again(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let mut given = std::collections::BTreeSet::new();
    for round in 0..6 {
        let (version, expected) = match round % 2 {
            0 => (memory.set_for("k", "1", 100).await, "1"),
            _ => (memory.add("k", 7).await.version, "7"),
        };
        assert!(given.insert(version), "{version} was given out before");
        assert!(
            given.last() == Some(&version) && version < 1 << 53,
            "versions grow, and programs that count with doubles can hold them"
        );
        let again = memory.set_when("k", expected, Precondition::Version(version)).await.unwrap();
        assert!(given.insert(again));
        match round {
            0 | 3 => drop(memory.hot.remove(&memory.scope, "k").await.unwrap()),
            1 | 4 => {
                assert!(given.insert(memory.tombstone("k").await));
                memory.hot.remove(&memory.scope, "k").await.unwrap();
            }
            _ => {
                memory.hot.expire(&memory.scope, "k", Duration::from_millis(50)).await.unwrap();
                until("the value expires", || async { memory.get("k").await.is_none() }).await;
            }
        }
        let next = memory.set("k", "another").await;
        assert!(given.insert(next), "{next} was given out before");
        for old in &given {
            assert_eq!(
                memory.set_when("k", "stolen", Precondition::Version(*old)).await.is_some(),
                *old == next,
                "{old} of {next}"
            );
            if *old == next {
                given.insert(memory.get("k").await.unwrap().version);
                break;
            }
        }
        memory.hot.remove(&memory.scope, "k").await.unwrap();
    }
}

/// A value that is brought back from elsewhere has its version again, unless the store remembers a later one;
/// it is brought back only where nothing is known of the key.
pub async fn a_value_brought_back_has_its_version_again(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let elsewhere = memory.set("elsewhere", "a").await;
    assert_eq!(memory.set_when("k", "a", Precondition::UnknownSince(elsewhere)).await, Some(elsewhere));
    assert_eq!(memory.get("k").await.unwrap().version, elsewhere);
    assert_eq!(memory.set_when("k", "b", Precondition::UnknownSince(elsewhere)).await, None);
    let next = memory.set_when("k", "c", Precondition::Version(elsewhere)).await.unwrap();
    assert!(next > elsewhere);
    memory.hot.remove(&memory.scope, "k").await.unwrap();
    let back = memory.set_when("k", "a", Precondition::UnknownSince(elsewhere)).await.unwrap();
    assert!(back == elsewhere || back > next, "{back} is neither its own nor a new one");
    assert!(memory.set("k", "d").await > next, "what comes next is new");
}

/// A value that is set again without a time stays.
pub async fn a_value_set_again_without_time_stays(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set_for("witness", "x", 200).await;
    memory.set_for("k", "a", 200).await;
    memory.set("k", "b").await;
    assert_eq!(memory.get("k").await.unwrap().ttl, None);
    until("the witness expires", || async { memory.get("witness").await.is_none() }).await;
    assert_eq!(memory.bytes("k").await, Some("b".into()));
}

/// The time of a value can be changed, shorter and longer.
pub async fn the_time_of_a_value_can_be_changed(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set("k", "a").await;
    memory.set_for("longer", "b", 60_000).await;
    assert!(memory.hot.expire(&memory.scope, "longer", Duration::from_secs(3_600)).await.unwrap());
    assert!(memory.get("longer").await.unwrap().ttl.unwrap() > Duration::from_secs(3_000));
    assert!(memory.hot.expire(&memory.scope, "k", Duration::from_millis(150)).await.unwrap());
    until("the value expires", || async { memory.get("k").await.is_none() }).await;
    assert!(!memory.hot.expire(&memory.scope, "k", Duration::from_secs(9)).await.unwrap());
    memory.tombstone("dead").await;
    assert!(!memory.hot.expire(&memory.scope, "dead", Duration::from_secs(9)).await.unwrap());
}

/// Numbers are incremented, from nothing too.
pub async fn numbers_are_incremented(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let Incremented { number: value, version: first } = memory.add("n", 5).await;
    assert_eq!(value, 5);
    let Incremented { number: value, version } = memory.add("n", -7).await;
    assert_eq!(value, -2);
    assert!(version > first);
    assert_eq!(memory.bytes("n").await, Some("-2".into()), "a number is JSON");
    memory.set("set", "40").await;
    assert_eq!(memory.add("set", 2).await.number, 42);
    assert_eq!(memory.add("set", 0).await.number, 42);
    memory.tombstone("dead").await;
    assert_eq!(memory.add("dead", 3).await.number, 3);
    // Beyond what a double can hold.
    memory.set("large", "9007199254740993").await;
    assert_eq!(memory.add("large", 2).await.number, 9_007_199_254_740_995);
}

/// Concurrent increments lose nothing.
pub async fn concurrent_increments_lose_nothing(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let adders = (0..8).map(|_| {
        let memory = memory.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for _ in 0..25 {
                mine.push(memory.add("n", 1).await.number);
            }
            mine
        })
    });
    let mut all: Vec<i64> = Vec::new();
    for adder in futures::future::join_all(adders).await {
        all.extend(adder.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=200).collect::<Vec<_>>(), "every caller saw its own number");
}

/// What is not a whole number is not incremented.
pub async fn what_is_no_number_is_not_incremented(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    for text in ["\"5\"", "five", "1.5", "", "{}", "99999999999999999999"] {
        let version = memory.set("k", text).await;
        assert_eq!(
            kind(memory.hot.increment(&memory.scope, "k", 1, None).await),
            ErrorKind::Validation,
            "{text}"
        );
        let value = memory.get("k").await.unwrap();
        assert_eq!((value.bytes.unwrap(), value.version), (Bytes::copy_from_slice(text.as_bytes()), version));
    }
}

/// Numbers do not overflow.
pub async fn numbers_do_not_overflow(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set("k", &(i64::MAX - 1).to_string()).await;
    assert_eq!(memory.add("k", 1).await.number, i64::MAX);
    assert_eq!(kind(memory.hot.increment(&memory.scope, "k", 1, None).await), ErrorKind::Validation);
    assert_eq!(memory.bytes("k").await, Some(i64::MAX.to_string().into()));
    memory.set("k", &i64::MIN.to_string()).await;
    assert_eq!(kind(memory.hot.increment(&memory.scope, "k", -1, None).await), ErrorKind::Validation);
}

/// An increment keeps the time to live, unless it gets another.
pub async fn an_increment_keeps_the_time_unless_it_gets_another(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    memory.set_for("k", "1", 3_600_000).await;
    memory.add("k", 1).await;
    let left = memory.get("k").await.unwrap().ttl.unwrap();
    assert!(left <= Duration::from_secs(3_600) && left > Duration::from_secs(3_000));
    memory.hot.increment(&memory.scope, "k", 1, Some(Duration::from_millis(100))).await.unwrap();
    until("the number expires", || async { memory.get("k").await.is_none() }).await;
    assert_eq!(memory.add("k", 1).await.number, 1);
    assert_eq!(memory.get("k").await.unwrap().ttl, None);
}

/// A value of a megabyte survives.
pub async fn a_value_of_a_megabyte_survives(hot: Arc<dyn HotTier>) {
    let memory = Memory::new(hot);
    let bytes = Bytes::from((0..1_048_576_u32).map(|n| (n * 37 % 253) as u8).collect::<Vec<_>>());
    memory.hot.set(&memory.scope, "k", Some(bytes.clone()), "x/y", None, Precondition::Always).await.unwrap();
    assert!(memory.bytes("k").await == Some(bytes), "the bytes differ");
}
