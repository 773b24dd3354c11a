//! Counters of what is erased: the counts stay, values that no other item has go.

use std::collections::BTreeSet;

use bson::Document;
use chronos_db::documents::{Batch, Guard, Namespace, Scan, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Collection, Env, ErrorKind, ItemId, Json, Random as _, json};
use futures::TryStreamExt as _;
use test_support::SeededRandom;

use super::{POINTS, counted, end_leases, killed_at_with, rules, totals, with};
use crate::records::pairing::{Kind, Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing};

mod alone {
    super::on_every_pairing!(
        an_erased_item_stays_counted_and_its_values_are_nowhere,
        a_value_that_another_item_has_stays,
        a_recount_keeps_what_erased_items_shared_with_others,
        a_value_that_comes_again_after_an_erasure_counts_anew,
        a_value_that_is_erased_before_its_follower_came_to_the_totals_takes_no_other_with_it,
        random_erasures_leave_the_values_of_the_others_whatever_fails_on_the_way,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(a_follower_that_is_killed_at_an_erasure_leaves_no_value_and_no_wrong_total);
    use super::*;
}

const PERSONAL: &str = "personal-5f0c1d";

fn erasing() -> Json {
    with(rules(), &json!({"logicalDelete": {"enabled": false}}))
}

async fn erase(users: &Collection, id: &ItemId) {
    users.delete(id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
}

async fn values(users: &Collection) -> BTreeSet<String> {
    let values = users.counters().unique("open", "n").limit(1_000).await.unwrap();
    values.iter().map(|value| value.value.to_string()).collect()
}

async fn stored_counts(store: &Store, users: &Collection) -> String {
    let counts = Namespace::new(users.database(), "cnt_total");
    format!("{:?}", store.documents().scan(&counts, Scan::default()).try_collect::<Vec<_>>().await.unwrap())
}

/// Whether it was counted before its versions went or not.
async fn an_erased_item_stays_counted_and_its_values_are_nowhere(p: &Pairing) {
    let store = p.open_with(&erasing());
    for followed in [true, false] {
        let users = store.collection(if followed { "users" } else { "others" });
        let id = users.create(json!({"s": "open", "n": PERSONAL, "deep": {"x": 9}})).await.unwrap().id;
        users.update(&id, json!({"deep": {"x": 1}})).await.unwrap();
        users.create(json!({"s": "open", "n": 2})).await.unwrap();
        if followed {
            users.counters().follow().await.unwrap();
            assert!(stored_counts(&store, &users).await.contains(PERSONAL));
        }
        erase(&users, &id).await;
        let seen = counted(&users).await;
        assert_eq!((&seen["created"], &seen["updated"], &seen["deleted"]), (&json!(2), &json!(1), &json!(1)));
        let (open, gone) = (&seen["rules"]["open"], &seen["rules"]["gone"]);
        assert_eq!(gone["deleted"], json!(1), "by what it was");
        assert_eq!((&open["created"], &open["deleted"]), (&json!(2), &json!(1)));
        assert_eq!(open["unique"]["n"], json!(1), "its value is no longer one");
        assert_eq!(seen["rules"]["openNow"]["gauge"], json!(1));
        assert_eq!(values(&users).await, BTreeSet::from(["2".to_owned()]));
        for stored in
            [stored_counts(&store, &users).await, format!("{:?}", store.stored(&users, "ver").await)]
        {
            assert!(!stored.contains(PERSONAL), "{stored}");
        }
        let recounted = users.counters().recount().await.unwrap();
        assert!(!recounted.corrected, "{:#}", recounted.to_json());
        assert_eq!(recounted.totals.counts.sum(), 4);
    }
    if p.kind == Kind::EmbeddedLocal {
        for file in std::fs::read_dir(p.folder().join("documents")).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(PERSONAL.len()).any(|window| window == PERSONAL.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

async fn a_value_that_another_item_has_stays(p: &Pairing) {
    let users = p.open_with(&erasing()).users();
    let id = users.create(json!({"s": "open", "n": "both"})).await.unwrap().id;
    users.create(json!({"s": "open", "n": "both"})).await.unwrap();
    users.counters().follow().await.unwrap();
    erase(&users, &id).await;
    assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(1));
    assert_eq!(values(&users).await, BTreeSet::from(["\"both\"".to_owned()]));
}

/// What is left of an erased version does not say its values, so a recount cannot know them.
async fn a_recount_keeps_what_erased_items_shared_with_others(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    let both = json!({"s": "open", "n": PERSONAL});
    let (first, second) =
        (users.create(both.clone()).await.unwrap().id, users.create(both.clone()).await.unwrap().id);
    users.update(&first, json!({"deep": {"x": 1}})).await.unwrap();
    let shared = async || {
        let values = users.counters().unique("open", "n").await.unwrap();
        values.iter().map(|value| (value.counts.created, value.counts.updated)).collect::<Vec<_>>()
    };
    users.counters().follow().await.unwrap();
    erase(&users, &first).await;
    for _ in 0..2 {
        assert_eq!(shared().await, [(2, 1)]);
        let recounted = users.counters().recount().await.unwrap();
        assert!(!recounted.corrected, "{:#}", recounted.to_json());
    }
    assert_eq!(shared().await, [(2, 1)]);
    users.create(both).await.unwrap();
    assert_eq!(shared().await, [(3, 1)], "it goes on from there");
    assert!(!users.counters().recount().await.unwrap().corrected);

    // More than erased versions can have been is a mistake.
    let counts = Namespace::new(users.database(), "cnt_total");
    let stored: Vec<_> = store.documents().scan(&counts, Scan::default()).try_collect().await.unwrap();
    let is_open = |count: &Document| count.get_str("ruleName").is_ok_and(|name| name == "open");
    let mut wrong = stored.into_iter().find(is_open).unwrap();
    wrong.insert("updated", 5);
    let mut batch = Batch::new();
    batch.push(&counts, Write::put(wrong, Guard::Any));
    store.documents().apply(batch).await.unwrap();
    assert!(users.counters().recount().await.unwrap().corrected);
    assert_eq!(shared().await, [(2, 0)], "those that say it");
    assert!(!users.counters().recount().await.unwrap().corrected);
    erase(&users, &second).await;
    assert_eq!(shared().await, [(2, 0)]);
}

async fn a_value_that_comes_again_after_an_erasure_counts_anew(p: &Pairing) {
    let users = p.open_with(&erasing()).users();
    let mut id = users.create(json!({"s": "open", "n": "again"})).await.unwrap().id;
    for followed in [true, false, true] {
        if followed {
            users.counters().follow().await.unwrap();
        }
        erase(&users, &id).await;
        assert_eq!(totals(&users).await["rules"]["open"]["unique"]["n"], json!(0));
        id = users.create(json!({"s": "open", "n": "again"})).await.unwrap().id;
        assert_eq!(totals(&users).await["rules"]["open"]["unique"]["n"], json!(1));
    }
    assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(1));
    let values = users.counters().unique("open", "n").await.unwrap();
    assert_eq!((values.len(), values[0].counts.created), (1, 1), "{values:?}");
    assert!(!users.counters().recount().await.unwrap().corrected);
}

async fn a_value_that_is_erased_before_its_follower_came_to_the_totals_takes_no_other_with_it(p: &Pairing) {
    let fail = FailPoints::armable();
    let users = p.opening().with(&erasing()).env(Env { fail: fail.clone(), ..Env::default() }).open().users();
    for n in ["kept", "kept too"] {
        users.create(json!({"s": "open", "n": n})).await.unwrap();
    }
    users.counters().follow().await.unwrap();
    let id = users.create(json!({"s": "open", "n": PERSONAL})).await.unwrap().id;
    fail.arm("counters.after_counts", FailAction::Error(ErrorKind::Database), 0, 1);
    users.counters().follow().await.unwrap_err();
    fail.disarm("counters.after_counts");
    erase(&users, &id).await;
    assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(2));
    assert_eq!(values(&users).await.len(), 2);
    assert!(!users.counters().recount().await.unwrap().corrected);
}

async fn random_erasures_leave_the_values_of_the_others_whatever_fails_on_the_way(p: &Pairing) {
    let seed = std::env::var("CHRONOS_COUNTERS_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("CHRONOS_COUNTERS_SEED={seed}");
    let random = SeededRandom::new(seed);
    let pick = |n: u64| random.next_u64() % n;
    let fail = FailPoints::armable();
    let users = p.opening().with(&erasing()).env(Env { fail: fail.clone(), ..Env::default() }).open().users();
    let mut live: Vec<(ItemId, String)> = Vec::new();
    for step in 0..40_u64 {
        if live.is_empty() || pick(5) < 3 {
            let id = users.create(json!({"s": "open", "n": step})).await.unwrap().id;
            live.push((id, step.to_string()));
        } else {
            let at = pick(live.len() as u64) as usize;
            erase(&users, &live.swap_remove(at).0).await;
        }
        if pick(2) == 0 {
            let point = POINTS[pick(POINTS.len() as u64) as usize];
            fail.arm(point, FailAction::Error(ErrorKind::Database), pick(2), 1);
            // Whether it was met or not: the values have to be right.
            let _ = users.counters().follow().await;
            fail.disarm(point);
        }
        let expected: BTreeSet<String> = live.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(values(&users).await, expected, "step {step}");
        let counted = totals(&users).await["rules"]["open"]["unique"]["n"].clone();
        assert_eq!(counted, json!(expected.len()), "step {step}");
    }
    assert!(!users.counters().recount().await.unwrap().corrected);
}

async fn a_follower_that_is_killed_at_an_erasure_leaves_no_value_and_no_wrong_total(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    for point in ["counters.before_counts", "counters.after_counts", "counters.after_totals"] {
        let id = users.create(json!({"s": "open", "n": PERSONAL})).await.unwrap().id;
        users.counters().follow().await.unwrap();
        erase(&users, &id).await;
        assert!(killed_at_with(p, &erasing(), point, "follow").await, "{point} was never reached");
        assert_eq!(totals(&users).await["rules"]["open"]["unique"]["n"], json!(0), "{point}");
        assert!(values(&users).await.is_empty(), "{point}");
        end_leases(&store, &users).await;
        assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(0), "{point}");
        assert!(!stored_counts(&store, &users).await.contains(PERSONAL), "{point}");
    }
    assert!(!users.counters().recount().await.unwrap().corrected);
}
