//! Counters: exact after every write, whatever follows the log or dies on the way.

mod costs;
mod erased;
mod model;

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use chronos_db::counters::Period;
use chronos_db::documents::{Batch, Guard, Namespace, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Collection, Env, ErrorKind, Json, Random as _, Route, Timestamp, json};
use test_support::{SeededRandom, ShiftedClock};

use self::model::Model;
use super::child;
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        every_kind_of_write_counts_once,
        logins_views_and_purchases_are_counted_as_the_demo_shows,
        a_deletion_is_judged_by_what_it_takes_away,
        a_random_history_is_counted_as_the_model_counts_it_whatever_fails_on_the_way,
        a_rule_that_is_added_later_counts_from_there_and_a_recount_counts_all,
        a_rule_that_was_changed_counts_anew_and_the_old_one_goes_on_beside_it,
        a_reset_is_zero_from_then_on,
        periods_are_counted_by_the_time_of_the_change_and_end,
        a_damaged_row_is_named_and_passed_over,
        damaged_totals_are_an_error_until_a_recount,
        counters_that_are_ahead_of_their_log_begin_anew_by_a_recount_or_a_reset,
        what_is_trimmed_was_counted,
        values_are_distinguished_by_type_and_counted_within_arrays,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        followers_that_are_killed_at_any_step_count_every_version_once,
        two_followers_at_once_count_every_version_once,
        tenants_of_one_database_are_counted_apart,
        a_clock_that_goes_back_changes_no_total,
        two_followers_that_are_killed_in_turn_count_every_version_once,
    );
    use super::*;
}

const POINTS: [&str; 7] = [
    "counters.before_counts",
    "counters.between_counts",
    "counters.after_counts",
    "counters.after_totals",
    "counters.between_pieces",
    "counters.before_exchange",
    "counters.before_sweep",
];

/// Rules of either scope; `deep` is not indexed.
fn rules() -> Json {
    json!({
        "collectionMaps": {"users": {"indexedProps": ["s", "n"]}},
        "counterRules": {"rules": [
            {"name": "open", "when": {"s": "open"}, "countUnique": ["n"]},
            {"name": "born.big", "on": ["CREATE"], "scope": "payload", "when": {"deep.x": {"$gte": 5}}},
            {"name": "gone", "on": ["DELETE"], "scope": "payload", "when": {"deep.x": {"$lt": 5}}, "countUnique": ["s"]},
            {"name": "openNow", "mode": "gauge", "when": {"s": "open"}},
            {"name": "bigNow", "mode": "gauge", "scope": "payload", "when": {"deep.x": {"$gte": 5}}},
        ]},
    })
}

async fn totals(collection: &Collection) -> Json {
    collection.counters().totals().await.unwrap().to_json()
}

async fn created(collection: &Collection, rule: &str) -> Json {
    totals(collection).await["rules"][rule]["created"].clone()
}

/// Read, then followed and read again.
async fn counted(collection: &Collection) -> Json {
    let before = totals(collection).await;
    collection.counters().follow().await.unwrap();
    assert_eq!(totals(collection).await, before, "following changes no total");
    before
}

fn counts(created: u64, updated: u64, deleted: u64) -> Json {
    json!({ "created": created, "updated": updated, "deleted": deleted })
}

fn with(mut counts: Json, more: &Json) -> Json {
    for (key, value) in more.as_object().unwrap() {
        counts[key] = value.clone();
    }
    counts
}

/// N-18, G-05, G-35.
async fn every_kind_of_write_counts_once(p: &Pairing) {
    let rules = json!({"counterRules": {"rules": [
        {"name": "open", "when": {"status": "open"}, "countUnique": ["n"]},
        {"name": "openNow", "mode": "gauge", "when": {"status": "open"}},
    ]}});
    let things = p.open_with(&rules).collection("things");
    assert_eq!(totals(&things).await["cv"], json!(-1), "nothing is there, and nothing is made");
    let id = things.create(json!({"key": "a", "status": "open", "n": 1})).await.unwrap().id;
    things.create(json!({"key": "b", "status": "open", "n": "1"})).await.unwrap();
    things.update(&id, json!({"n": 2})).await.unwrap();
    things.update(&id, json!({"n": 2})).await.unwrap();
    things.enrich(&id, json!({"tags": ["x"]})).await.unwrap();
    things.restore(&id).to_version(0).await.unwrap();
    things.delete(&id).await.unwrap();
    things.restore(&id).to_version(1).await.unwrap();
    assert_eq!(totals(&things).await["rules"]["openNow"]["gauge"], json!(2));
    things.delete(&id).await.unwrap();
    let again = things.create(json!({"key": "a", "status": "open", "n": 3})).await.unwrap().id;
    things.update(&again, json!({"status": "closed"})).await.unwrap();
    let nobody = "64f0c0ffee64f0c0ffee64f0".parse().unwrap();
    assert_eq!(refused(things.update(&nobody, json!({"n": 9})).await), ErrorKind::NotFound);
    assert_eq!(
        counted(&things).await,
        with(
            counts(3, 5, 2),
            &json!({
                "tenant": "acme", "dbName": things.database(), "collection": "things", "cv": 9,
                "rules": {"open": with(counts(3, 4, 2), &json!({"unique": {"n": 4}})), "openNow": with(counts(3, 4, 2), &json!({"gauge": 1}))},
            })
        )
    );
    let values = things.counters().unique("open", "n").await.unwrap();
    let mut seen: Vec<(Json, u64, u64, u64)> = values
        .iter()
        .map(|value| (value.value.clone(), value.counts.created, value.counts.updated, value.counts.deleted))
        .collect();
    assert_eq!((&seen[0].0, &seen[1].0), (&json!(2), &json!(1)), "the most frequent first");
    seen.sort_by_key(|(value, ..)| value.to_string());
    assert_eq!(seen, [(json!("1"), 1, 0, 0), (json!(1), 1, 1, 1), (json!(2), 0, 3, 1), (json!(3), 1, 0, 0)]);
    assert_eq!(things.counters().unique("open", "n").limit(2).await.unwrap(), values[..2]);
    assert_eq!(refused(things.counters().unique("open", "key").await), ErrorKind::Validation);
    assert_eq!(refused(things.counters().unique("shut", "n").await), ErrorKind::Validation);
    assert!(!things.counters().recount().await.unwrap().corrected);
}

/// D-05.
async fn logins_views_and_purchases_are_counted_as_the_demo_shows(p: &Pairing) {
    let rules = json!({"counterRules": {"rules": [
        {"name": "logins", "on": ["CREATE"], "when": {"action": "login"}, "countUnique": ["user", "session"]},
        {"name": "views", "on": ["CREATE"], "when": {"action": "view"}, "countUnique": ["product"]},
        {"name": "purchases", "on": ["CREATE"], "when": {"action": "purchase"}},
    ]}});
    let events = p.open_with(&rules).collection("events");
    for (user, session) in [("ann", "1"), ("ann", "1"), ("ann", "2"), ("bob", "3"), ("cid", "4")] {
        events.create(json!({"action": "login", "user": user, "session": session})).await.unwrap();
    }
    for product in ["lamp", "lamp", "chair", "lamp", "desk"] {
        events.create(json!({"action": "view", "product": product})).await.unwrap();
    }
    for n in 0..3 {
        events.create(json!({"action": "purchase", "n": n})).await.unwrap();
    }
    let counted = counted(&events).await;
    assert_eq!(
        (&counted["created"], &counted["updated"], &counted["deleted"]),
        (&json!(13), &json!(0), &json!(0))
    );
    let unique = |unique: Json| json!({ "unique": unique });
    assert_eq!(
        counted["rules"],
        json!({
            "logins": with(counts(5, 0, 0), &unique(json!({"user": 3, "session": 4}))),
            "views": with(counts(5, 0, 0), &unique(json!({"product": 3}))),
            "purchases": counts(3, 0, 0),
        })
    );
    let viewed = events.counters().unique("views", "product").await.unwrap();
    let viewed: Vec<(Json, u64)> = viewed.into_iter().map(|of| (of.value, of.counts.created)).collect();
    assert_eq!(viewed[0], (json!("lamp"), 3), "the most frequent first");
    assert_eq!(viewed.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 1, 1]);
}

async fn a_deletion_is_judged_by_what_it_takes_away(p: &Pairing) {
    let users = p.open_with(&rules()).users();
    let small = users.create(json!({"s": "open", "n": 1, "deep": {"x": 1}})).await.unwrap().id;
    let big = users.create(json!({"s": "open", "n": 1, "deep": {"x": 9}})).await.unwrap().id;
    users.update(&small, json!({"deep": {"x": 8}})).await.unwrap();
    users.update(&big, json!({"deep": {"x": 2}, "s": "shut"})).await.unwrap();
    users.restore(&small).to_version(0).await.unwrap();
    for id in [&small, &big] {
        users.delete(id).await.unwrap();
    }
    let rules = counted(&users).await["rules"].clone();
    assert_eq!(rules["gone"], with(counts(0, 0, 2), &json!({"unique": {"s": 2}})), "by what they were last");
    assert_eq!(rules["open"]["deleted"], json!(1));
    assert_eq!(rules["born.big"], counts(1, 0, 0));
    assert!(!users.counters().recount().await.unwrap().corrected, "the documents say what the rows recorded");
}

/// Fails at any step, reads in between, two followers at once.
async fn a_random_history_is_counted_as_the_model_counts_it_whatever_fails_on_the_way(p: &Pairing) {
    let seed = std::env::var("CHRONOS_COUNTERS_SEED").map_or(11, |seed| seed.parse().unwrap());
    let steps = std::env::var("CHRONOS_COUNTERS_STEPS").map_or(60, |steps| steps.parse().unwrap());
    eprintln!("CHRONOS_COUNTERS_SEED={seed} CHRONOS_COUNTERS_STEPS={steps}");
    let random = SeededRandom::new(seed);
    let fail = FailPoints::armable();
    let mut config = rules();
    config["retention"] = json!({"counters": {"days": 4000}});
    let users = p.opening().with(&config).env(Env { fail: fail.clone(), ..Env::default() }).open().users();
    let mut model = Model::default();
    for step in 0..steps {
        model.change(&users, &random).await;
        match random.next_u64() % 8 {
            0 => drop(users.counters().follow().await.unwrap()),
            1 | 2 => {
                let point = POINTS[(random.next_u64() % POINTS.len() as u64) as usize];
                fail.arm(point, FailAction::Error(ErrorKind::Database), random.next_u64() % 2, 1);
                // Whether it was met or not, and what it left: the totals have to be right.
                let _ = if random.next_u64().is_multiple_of(2) {
                    users.counters().follow().await.map(drop)
                } else {
                    users.counters().recount().await.map(drop)
                };
                fail.disarm(point);
            }
            3 => {
                let (one, other) = (users.counters(), users.counters());
                let (one, other) =
                    futures::future::join(one.follow().into_future(), other.recount().into_future()).await;
                one.unwrap();
                assert!(!other.unwrap().corrected, "step {step}");
            }
            _ => {}
        }
        if random.next_u64().is_multiple_of(4) || step + 1 == steps {
            model.check(&users, &format!("seed {seed}, step {step}")).await;
        }
    }
    users.counters().follow().await.unwrap();
    model.check(&users, "followed").await;
    assert!(!users.counters().recount().await.unwrap().corrected);
    model.check(&users, "recounted").await;
}

async fn a_rule_that_is_added_later_counts_from_there_and_a_recount_counts_all(p: &Pairing) {
    if p.kind == super::pairing::Kind::EmbeddedMemory {
        return;
    }
    let config = |names: &[&str]| {
        let rules: Vec<Json> = names
            .iter()
            .map(|name| json!({"name": name, "scope": "payload", "when": {"colour": name}}))
            .collect();
        json!({ "counterRules": { "rules": rules } })
    };
    let before = p.open_with(&config(&["red"])).users();
    before.create(json!({"colour": "red"})).await.unwrap();
    before.create(json!({"colour": "blue"})).await.unwrap();
    before.counters().follow().await.unwrap();
    let after = p.open_with(&config(&["red", "blue"])).users();
    after.counters().follow().await.unwrap();
    after.create(json!({"colour": "blue"})).await.unwrap();
    assert_eq!((created(&after, "red").await, created(&after, "blue").await), (json!(1), json!(1)));
    // Who does not know the rule counts it all the same.
    before.counters().follow().await.unwrap();
    assert_eq!(created(&after, "blue").await, json!(1));
    let recounted = after.counters().recount().await.unwrap();
    assert!(recounted.corrected);
    assert_eq!(
        recounted.totals.rules["blue"].counts.created, 2,
        "by the documents, not by what the rows say"
    );
    assert!(!after.counters().recount().await.unwrap().corrected);
}

async fn a_rule_that_was_changed_counts_anew_and_the_old_one_goes_on_beside_it(p: &Pairing) {
    if p.kind == super::pairing::Kind::EmbeddedMemory {
        return;
    }
    let config = |n: i32| json!({"counterRules": {"rules": [{"name": "n", "when": {"n": n}}]}});
    let (one, two) = (p.open_with(&config(1)).users(), p.open_with(&config(2)).users());
    for n in [1, 2] {
        one.create(json!({ "n": n })).await.unwrap();
    }
    one.counters().follow().await.unwrap();
    two.counters().follow().await.unwrap();
    for n in [1, 2, 2] {
        two.create(json!({ "n": n })).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!((created(&one, "n").await, created(&two, "n").await), (json!(2), json!(2)));
        one.counters().follow().await.unwrap();
        two.counters().follow().await.unwrap();
    }
}

async fn a_reset_is_zero_from_then_on(p: &Pairing) {
    let config = with(rules(), &json!({"retention": {"counters": {"days": 9}}}));
    let users = p.open_with(&config).users();
    for n in 0..4 {
        users.create(json!({"s": "open", "n": n % 3})).await.unwrap();
        if n == 1 {
            users.counters().follow().await.unwrap();
        }
    }
    assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(3));
    users.create(json!({"s": "open", "n": 7})).await.unwrap();
    users.counters().reset().await.unwrap();
    let zero = totals(&users).await;
    assert_eq!((&zero["created"], &zero["rules"]["open"]["unique"]["n"]), (&json!(0), &json!(0)));
    assert_eq!(zero["rules"]["openNow"]["gauge"], json!(5), "a gauge counts no versions");
    assert!(users.counters().unique("open", "n").await.unwrap().is_empty());
    assert!(users.counters().buckets(Period::Day).await.unwrap().is_empty());
    users.create(json!({"s": "open", "n": 0})).await.unwrap();
    let one = counted(&users).await;
    assert_eq!((&one["created"], &one["rules"]["open"]["unique"]["n"]), (&json!(1), &json!(1)));
    let recounted = users.counters().recount().await.unwrap();
    assert_eq!((recounted.corrected, recounted.totals.counts.created), (true, 6));
    assert_eq!(users.counters().unique("open", "n").await.unwrap().len(), 4);
    assert!(!users.counters().recount().await.unwrap().corrected);
}

async fn periods_are_counted_by_the_time_of_the_change_and_end(p: &Pairing) {
    let config = with(rules(), &json!({"retention": {"counters": {"days": 7, "months": 2}}}));
    let users = p.open_with(&config).users();
    let now = p.open().documents().now().await.unwrap();
    let day = |back: i64| now.plus_millis(-back * 24 * 3_600_000);
    for (n, back) in [200, 90, 12, 3, 3, 0].into_iter().enumerate() {
        users.create(json!({"n": n, "s": "open"})).at(day(back)).await.unwrap();
    }
    for _ in 0..2 {
        let days = users.counters().buckets(Period::Day).await.unwrap();
        let seen: Vec<(Timestamp, u64, u64)> =
            days.iter().map(|day| (day.from, day.counts.created, day.rules["open"].created)).collect();
        let start =
            |at: Timestamp| Timestamp::from_millis(at.as_millis().div_euclid(86_400_000) * 86_400_000);
        assert_eq!(seen, [(start(day(3)), 2, 2), (start(day(0)), 1, 1)]);
        let months: u64 =
            users.counters().buckets(Period::Month).await.unwrap().iter().map(|m| m.counts.created).sum();
        assert!((4..=5).contains(&months), "90 days may be within three months: {months}");
        assert_eq!(refused(users.counters().buckets(Period::Week).await), ErrorKind::Validation);
        users.counters().follow().await.unwrap();
    }
    assert_eq!(totals(&users).await["created"], json!(6), "the totals stay");
}

async fn a_damaged_row_is_named_and_passed_over(p: &Pairing) {
    let store = p.open_with(&rules());
    let users = store.users();
    for n in 0..3 {
        users.create(json!({"s": "open", "n": n})).ack_stored().await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let mut row =
        store.stored(&users, "ver").await.into_iter().find(|row| row.get_i32("cv").ok() == Some(1)).unwrap();
    row.insert("op", "NONSENSE");
    let named = row.get_object_id("_id").unwrap().to_hex();
    store.put(&users, "ver", row).await;
    let followed = users.counters().follow().await.unwrap();
    assert_eq!((followed.cv, followed.rows, followed.damaged_count), (2, 2, 1));
    assert_eq!((followed.damaged[0].cv, &followed.damaged[0].row), (1, &named));
    assert_eq!(totals(&users).await["created"], json!(2));
    users.create(json!({})).await.unwrap();
    assert_eq!(counted(&users).await["created"], json!(3));
    store.is_damaged();
}

async fn damaged_totals_are_an_error_until_a_recount(p: &Pairing) {
    let store = p.open_with(&rules());
    let users = store.users();
    users.create(json!({"s": "open", "n": 1})).await.unwrap();
    users.counters().follow().await.unwrap();
    let id = format!("tenant:acme|db:{}|coll:users", users.database());
    let mut batch = Batch::new();
    let damage = doc! { "_id": &id, "generation": "none", "revision": 7, "cv": "x" };
    batch.push(&Namespace::new(users.database(), "cnt_total"), Write::put(damage, Guard::Any));
    store.documents().apply(batch).await.unwrap();
    let error = users.counters().totals().await.unwrap_err();
    assert!(error.message().contains(&id) && error.message().contains("recount"), "{error}");
    users.counters().follow().await.unwrap_err();
    let recounted = users.counters().recount().await.unwrap();
    assert_eq!((recounted.corrected, recounted.totals.counts.created), (true, 1));
    assert_eq!(counted(&users).await["rules"]["open"]["unique"]["n"], json!(1));
}

/// As after the data came back from a dump that is older than the counters.
async fn counters_that_are_ahead_of_their_log_begin_anew_by_a_recount_or_a_reset(p: &Pairing) {
    let store = p.open_with(&rules());
    for recounts in [true, false] {
        let users = store.collection(if recounts { "users" } else { "others" });
        users.create(json!({"s": "open", "n": 1})).await.unwrap();
        users.counters().follow().await.unwrap();
        let counts = Namespace::new(users.database(), "cnt_total");
        let id = format!("tenant:acme|db:{}|coll:{}", users.database(), users.name());
        let mut ahead = store.documents().get(&counts, vec![id.into()]).await.unwrap().remove(0);
        ahead.insert("cv", 1_000);
        ahead.insert("created", 1_001);
        let mut batch = Batch::new();
        batch.push(&counts, Write::put(ahead, Guard::Any));
        store.documents().apply(batch).await.unwrap();
        users.create(json!({"s": "open", "n": 2})).await.unwrap();
        assert_eq!(totals(&users).await["created"], json!(1_001), "nothing moves");
        let before = if recounts {
            assert!(users.counters().recount().await.unwrap().corrected);
            2
        } else {
            users.counters().reset().await.unwrap();
            0
        };
        let seen = counted(&users).await;
        assert_eq!((&seen["created"], &seen["cv"]), (&json!(before), &json!(1)));
        users.create(json!({"s": "open", "n": 3})).await.unwrap();
        assert_eq!(counted(&users).await["created"], json!(before + 1));
        assert_eq!(users.counters().recount().await.unwrap().corrected, !recounts);
    }
}

async fn what_is_trimmed_was_counted(p: &Pairing) {
    let config = with(rules(), &json!({"versioning": {"enabled": false}}));
    let users = p.open_with(&config).users();
    let id = users.create(json!({"s": "open", "n": 1})).await.unwrap().id;
    for n in 2..5 {
        users.update(&id, json!({ "n": n })).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert!(users.trim(Duration::ZERO).await.unwrap() > 0);
    let seen = counted(&users).await;
    assert_eq!(
        (&seen["created"], &seen["updated"], &seen["rules"]["open"]["unique"]["n"]),
        (&json!(1), &json!(3), &json!(4))
    );
    assert_eq!(
        refused(users.counters().recount().await),
        ErrorKind::Validation,
        "there is nothing to count from"
    );
}

async fn values_are_distinguished_by_type_and_counted_within_arrays(p: &Pairing) {
    let config = json!({"counterRules": {"rules": [{"name": "all", "countUnique": ["v", "a.b"]}]}});
    let users = p.open_with(&config).users();
    let long = "x".repeat(3_000);
    for v in [
        json!(1),
        json!(1.0),
        json!("1"),
        json!(true),
        json!(["p", "q", "p"]),
        json!("q"),
        json!(null),
        json!({"k": 1}),
        json!(long),
    ] {
        users.create(json!({ "v": v, "a": [{"b": 1}, {"b": 2}] })).await.unwrap();
    }
    for _ in 0..2 {
        let values = users.counters().unique("all", "v").await.unwrap();
        let seen = |value: Json| values.iter().find(|v| v.value == value).map(|v| v.counts.created);
        assert_eq!(values.len(), 7, "{values:?}");
        assert_eq!(seen(json!(1)).or(seen(json!(1.0))), Some(2), "equal numbers are one value");
        assert_eq!((seen(json!("q")), seen(json!("p"))), (Some(2), Some(1)));
        assert_eq!(users.counters().unique("all", "a.b").await.unwrap().len(), 2);
        users.counters().follow().await.unwrap();
    }
}

const TASK: &str = "CHRONOS_TEST_FOLLOWER";

/// Starts this very binary as a follower that dies at a point; whether it got there.
async fn killed_at(p: &Pairing, point: &str, what: &str) -> bool {
    killed_at_with(p, &rules(), point, what).await
}

async fn killed_at_with(p: &Pairing, more: &Json, point: &str, what: &str) -> bool {
    let test = concat!(module_path!(), "::one_that_is_killed");
    child::dies_at(p, test, TASK, more, &format!("{point}=abort"), json!({ "what": what })).await
}

/// Does nothing in an ordinary run: it is what the test above starts.
#[tokio::test]
async fn one_that_is_killed() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
    match task["what"].as_str().unwrap() {
        "follow" => drop(users.counters().follow().await.unwrap()),
        "reset" => users.counters().reset().await.unwrap(),
        _ => drop(users.counters().recount().await.unwrap()),
    }
}

/// What the dead held ends by itself after half a minute; here, at once.
async fn end_leases(store: &Store, users: &Collection) {
    let id = format!("counters|tenant:acme|db:{}|coll:users", users.database());
    let mut batch = Batch::new();
    let leases = Namespace::new(users.database(), "chronos_leases");
    batch.push(&leases, Write::Delete { id: id.into(), guard: Guard::Any });
    store.documents().apply(batch).await.unwrap();
}

async fn followers_that_are_killed_at_any_step_count_every_version_once(p: &Pairing) {
    let store = p.open_with(&rules());
    let users = store.users();
    let (mut model, random) = (Model::default(), SeededRandom::new(3));
    let deaths = [
        ("counters.before_counts", "follow"),
        ("counters.after_counts", "follow"),
        ("counters.after_totals", "follow"),
        ("counters.between_pieces", "recount"),
        ("counters.before_exchange", "recount"),
        ("counters.before_sweep", "recount"),
    ];
    for (point, what) in deaths {
        for _ in 0..6 {
            model.change(&users, &random).await;
        }
        assert!(killed_at(p, point, what).await, "{point} was never reached");
        model.check(&users, &format!("killed at {point}")).await;
        if what == "follow" && point != "counters.after_totals" {
            assert!(users.counters().follow().await.unwrap().busy, "the dead one has the lease");
        }
        end_leases(&store, &users).await;
        // Every other time the next victim finds what this one left.
        if random.next_u64().is_multiple_of(2) {
            users.counters().follow().await.unwrap();
            model.check(&users, &format!("followed after {point}")).await;
        }
    }
    users.counters().follow().await.unwrap();
    assert!(!users.counters().recount().await.unwrap().corrected);
    model.check(&users, "recounted").await;
}

async fn two_followers_at_once_count_every_version_once(p: &Pairing) {
    let stores = [p.open_with(&rules()), p.open_with(&rules())];
    let handles = stores.each_ref().map(Store::users);
    let (mut model, random) = (Model::default(), SeededRandom::new(5));
    for round in 0..5 {
        for _ in 0..5 {
            model.change(&handles[round % 2], &random).await;
        }
        // Readers follow without a lease when they find a long tail, so two can really be at it.
        let recounts = handles.each_ref().map(|users| users.counters().recount());
        let follows = handles.each_ref().map(|users| users.counters().follow());
        let (recounts, follows) = futures::future::join(
            futures::future::join_all(recounts.map(std::future::IntoFuture::into_future)),
            futures::future::join_all(follows.map(std::future::IntoFuture::into_future)),
        )
        .await;
        for recounted in recounts {
            assert!(!recounted.unwrap().corrected, "round {round}");
        }
        follows.into_iter().for_each(|followed| drop(followed.unwrap()));
        for users in &handles {
            model.check(users, &format!("round {round}")).await;
        }
    }
}

async fn tenants_of_one_database_are_counted_apart(p: &Pairing) {
    let mut more = rules();
    more["databases"] = p.one_database();
    let store = p.open_with(&more);
    let users = |tenant: &str| store.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (users("acme"), users("globex"));
    for n in 0..3 {
        acme.create(json!({"s": "open", "n": n})).await.unwrap();
        globex.create(json!({"s": "open", "n": 0})).await.unwrap();
    }
    globex.create(json!({"s": "shut"})).await.unwrap();
    let (one, other) = (counted(&acme).await, counted(&globex).await);
    assert_eq!(
        (&one["tenant"], &one["created"], &one["rules"]["open"]["unique"]["n"]),
        (&json!("acme"), &json!(3), &json!(3))
    );
    assert_eq!(
        (&other["tenant"], &other["created"], &other["rules"]["open"]["unique"]["n"]),
        (&json!("globex"), &json!(4), &json!(1))
    );
    assert_eq!(
        (&one["rules"]["openNow"]["gauge"], &other["rules"]["openNow"]["gauge"]),
        (&json!(3), &json!(3))
    );
}

async fn a_clock_that_goes_back_changes_no_total(p: &Pairing) {
    let clock = Arc::new(ShiftedClock::default());
    let env = Env { clock: clock.clone(), ..Env::default() };
    let config = with(rules(), &json!({"retention": {"counters": {"days": 7}}}));
    let users = p.opening().with(&config).env(env).open().users();
    let (mut model, random) = (Model::default(), SeededRandom::new(9));
    for hours in [0, -30, 20, -60] {
        clock.set(hours * 3_600_000);
        for _ in 0..5 {
            model.change(&users, &random).await;
        }
        users.counters().follow().await.unwrap();
        model.check(&users, &format!("{hours} h")).await;
    }
    assert!(!users.counters().recount().await.unwrap().corrected);
}

async fn two_followers_that_are_killed_in_turn_count_every_version_once(p: &Pairing) {
    let store = p.open_with(&rules());
    let users = store.users();
    let (mut model, random) = (Model::default(), SeededRandom::new(13));
    for round in 0..3 {
        for _ in 0..6 {
            model.change(&users, &random).await;
        }
        // One dies before, the other behind the totals, while the first has its lease.
        let (one, other) = futures::future::join(
            killed_at(p, "counters.after_counts", "follow"),
            killed_at(p, "counters.between_pieces", "recount"),
        )
        .await;
        assert!(one || other, "round {round}");
        model.check(&users, &format!("round {round}")).await;
        end_leases(&store, &users).await;
    }
    users.counters().follow().await.unwrap();
    assert!(!users.counters().recount().await.unwrap().corrected);
    model.check(&users, "recounted").await;
}
