//! Many writers on one item, in one process.

use std::collections::BTreeSet;

use chronos_db::{Collection, ErrorKind, ItemId, Op, json};

use super::pairing::{Pairing, TIMEOUT, document, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        twenty_four_writers_of_one_item_all_succeed_without_a_hole,
        of_writers_that_expect_one_version_exactly_one_wins,
        writers_of_many_items_share_groups_without_mixing_them,
        deletes_and_updates_that_race_leave_one_history,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(six_enrichments_from_two_sides_lose_no_tag, two_sides_never_take_one_version);
    use super::*;
}

async fn assert_history(users: &Collection, id: &ItemId, versions: usize) {
    let history = users.history(id).await.unwrap();
    assert_eq!(history.len(), versions);
    for (ov, version) in (0..).zip(&history) {
        assert_eq!(version.ov, ov, "no hole");
        let view =
            users.get(id).version(ov).include_deleted().await.unwrap().expect("every version is readable");
        assert_eq!(view.cv, version.cv);
    }
    assert!(history.is_sorted_by(|a, b| a.cv < b.cv && a.at < b.at), "{history:?}");
}

/// N-01, G-01, G-50: bounded by a count instead of seconds; the final verification reads every object and
/// compares its SHA-256.
async fn twenty_four_writers_of_one_item_all_succeed_without_a_hole(p: &Pairing) {
    const WRITERS: usize = 24;
    const EACH: usize = 6;
    let store = p.opening().without_cache().open();
    let users = store.users();
    let id = users.create(json!({})).await.unwrap().id;
    let writer = |writer: usize| {
        let users = users.clone();
        tokio::spawn(async move {
            let mut ovs = Vec::new();
            for n in 0..EACH {
                ovs.push(users.update(&id, json!({ format!("w{writer}"): n })).await.unwrap().ov);
            }
            ovs
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let mut ovs = BTreeSet::new();
    for task in writers {
        ovs.extend(task.await.unwrap());
    }
    assert_eq!(ovs.len(), WRITERS * EACH, "every success is a version of its own");
    let last = document(&users, &id).await;
    assert!((0..WRITERS).all(|writer| last[format!("w{writer}")] == json!(EACH - 1)), "{last}");
    assert_history(&users, &id, WRITERS * EACH + 1).await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), WRITERS * EACH + 1);
}

async fn of_writers_that_expect_one_version_exactly_one_wins(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    for round in 0..5 {
        let attempts = (0..8).map(|writer| {
            users.update(&id, json!({ "n": round, "by": writer })).expect_ov(round).into_future()
        });
        let results = futures::future::join_all(attempts).await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for error in lost {
            let error = error.unwrap_err();
            assert_eq!((error.kind(), error.ov()), (ErrorKind::OptimisticLock, Some(round + 1)), "{error}");
        }
    }
    assert_history(&users, &id, 6).await;
}

async fn writers_of_many_items_share_groups_without_mixing_them(p: &Pairing) {
    let users = p.open().users();
    let created =
        futures::future::join_all((0..60).map(|n| users.create(json!({ "n": n })).into_future())).await;
    let created: Vec<_> = created.into_iter().map(Result::unwrap).collect();
    let cvs: BTreeSet<i64> = created.iter().map(|written| written.cv).collect();
    assert_eq!(cvs, (0..60).collect());
    let updates = (0..)
        .zip(&created)
        .map(|(n, written)| users.update(&written.id, json!({ "m": n * 2 })).into_future());
    futures::future::try_join_all(updates).await.unwrap();
    for (n, written) in (0..).zip(&created) {
        assert_eq!(document(&users, &written.id).await, json!({ "n": n, "m": n * 2 }));
    }
    assert_eq!(users.stable_cv().await.unwrap(), 119);
}

async fn deletes_and_updates_that_race_leave_one_history(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let updates = (0..10).map(|n| users.update(&id, json!({ "n": n + 1 })).into_future());
    let deletes = (0..3).map(|_| users.delete(&id).into_future());
    let results = futures::future::join_all(updates.chain(deletes)).await;
    let deleted = results[10..].iter().filter(|result| result.is_ok()).count();
    let written = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(deleted, 1);
    for result in results {
        assert!(result.is_ok() || refused(result) == ErrorKind::NotFound);
    }
    let history = users.history(&id).await.unwrap();
    assert_eq!((history.len(), history.last().unwrap().op), (written + 1, Op::Delete));
}

/// N-02, G-01: two `Chronos` that know nothing of each other.
async fn six_enrichments_from_two_sides_lose_no_tag(p: &Pairing) {
    let (one, other) = (p.open().users(), p.open().users());
    let id = one.create(json!({"tags": []})).await.unwrap().id;
    let enrich = |n: usize| {
        let side = if n.is_multiple_of(2) { &one } else { &other };
        side.enrich(&id, json!({"tags": [format!("t{n}")]})).function_id(format!("f{n}")).into_future()
    };
    for result in futures::future::join_all((0..6).map(enrich)).await {
        result.expect("enrichments without an expected version try again by themselves");
    }
    let mut tags: Vec<String> = document(&other, &id).await["tags"].to().unwrap();
    tags.sort();
    assert_eq!(tags, ["t0", "t1", "t2", "t3", "t4", "t5"]);
    assert_history(&one, &id, 7).await;
}

async fn two_sides_never_take_one_version(p: &Pairing) {
    let (one, other) = (p.open().users(), p.open().users());
    let id = one.create(json!({"n": 0})).await.unwrap().id;
    for round in 0..8 {
        let write = |side: &Collection| {
            side.update(&id, json!({ "n": round })).expect_ov(round).force().into_future()
        };
        let (a, b) = futures::future::join(write(&one), write(&other)).await;
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        assert_eq!(refused(if a.is_ok() { b } else { a }), ErrorKind::OptimisticLock);
    }
    assert_history(&other, &id, 9).await;
}
