//! What the documentation of the legacy library shows, from its beginning to its end.

use chronos_db::{Op, json};

use super::pairing::{Pairing, on_every_pairing};

on_every_pairing!(
    logins_views_and_purchases_are_counted_as_the_demo_says,
    a_write_that_meets_a_lock_waits_and_takes_place_when_the_lock_is_given_back,
);

/// D-05, G-31, G-34.
async fn logins_views_and_purchases_are_counted_as_the_demo_says(p: &Pairing) {
    let rule = |name: &str, unique: &[&str]| json!({ "name": name, "on": ["CREATE"], "when": { "action": name }, "countUnique": unique });
    let rules = [
        rule("login", &["userId", "sessionId"]),
        rule("view", &["productId"]),
        rule("purchase", &["userId"]),
    ];
    let store = p.open_with(&json!({ "counterRules": { "rules": rules } }));
    let events = store.collection("events");
    for (user, session) in [("u1", "s1"), ("u1", "s2"), ("u2", "s3"), ("u3", "s4"), ("u3", "s4")] {
        events.create(json!({ "action": "login", "userId": user, "sessionId": session })).await.unwrap();
    }
    for (user, product) in [("u1", "p1"), ("u2", "p1"), ("u3", "p1"), ("u1", "p2"), ("u2", "p3")] {
        events.create(json!({ "action": "view", "userId": user, "productId": product })).await.unwrap();
    }
    for user in ["u1", "u2", "u2"] {
        events.create(json!({ "action": "purchase", "userId": user })).await.unwrap();
    }
    // At once, and once more when a worker has been there.
    for follows in [true, false] {
        let totals = events.counters().totals().await.unwrap().to_json();
        assert_eq!(totals["created"], json!(13));
        let rule =
            |name: &str| (totals["rules"][name]["created"].clone(), totals["rules"][name]["unique"].clone());
        assert_eq!(rule("login"), (json!(5), json!({ "userId": 3, "sessionId": 4 })));
        assert_eq!(rule("view"), (json!(5), json!({ "productId": 3 })));
        assert_eq!(rule("purchase"), (json!(3), json!({ "userId": 2 })));
        let viewed = events.counters().unique("view", "productId").await.unwrap();
        let viewed: Vec<_> = viewed.iter().map(|value| value.to_json()).collect();
        let viewed: Vec<_> =
            viewed.iter().map(|value| (value["value"].as_str(), value["created"].as_i64())).collect();
        assert_eq!(viewed[0], (Some("p1"), Some(3)));
        assert_eq!((viewed.len(), viewed[1].1, viewed[2].1), (3, Some(1), Some(1)));
        if follows {
            events.counters().follow().await.unwrap();
        }
    }
}

/// G-26: what a lock holds up is not lost, and nobody has to try it again.
async fn a_write_that_meets_a_lock_waits_and_takes_place_when_the_lock_is_given_back(p: &Pairing) {
    let store = p.open_with(&json!({
        "fallback": { "baseDelayMs": 0, "maxDelayMs": 0, "spoolPath": "./spool" },
    }));
    let users = store.users();
    let id = users.create(json!({ "n": 0 })).await.unwrap().id;
    let lock = users.lock(&id).await.unwrap();
    let queued = users.update(&id, json!({ "n": 1 })).actor("ann").await.unwrap();
    assert!(queued.queued.is_some() && queued.id == id, "{queued:?}");
    users.update(&id, json!({ "m": 1 })).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(store.chronos.fallback().unwrap().retry_due().await.unwrap().done, 1);
    let history = users.history(&id).await.unwrap();
    let reported: Vec<_> = history.iter().map(|version| (version.op, version.actor.as_deref())).collect();
    assert_eq!(reported, [(Op::Create, None), (Op::Update, None), (Op::Update, Some("ann"))]);
    assert_eq!(super::pairing::document(&users, &id).await, json!({ "n": 1, "m": 1 }));
}
