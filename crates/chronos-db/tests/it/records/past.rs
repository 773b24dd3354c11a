//! Reading as of a point in the past.

use std::cmp::Ordering;

use chronos_db::documents::Direction;
use chronos_db::{Collection, ItemId, Json, List, View, json};
use futures::TryStreamExt as _;

use super::pairing::{Pairing, column, minute, on_every_pairing};

on_every_pairing!(
    an_item_reads_as_it_was_around_its_deletion,
    items_with_equal_versions_do_not_get_into_each_others_past,
    a_list_as_of_a_time_is_what_it_was_then,
    a_list_as_of_a_collection_version_pages_and_sorts_like_any_other,
    every_list_of_the_past_shows_what_its_items_were,
    no_list_of_the_past_shows_what_was_erased,
);

async fn an_item_reads_as_it_was_around_its_deletion(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).at(minute(10)).await.unwrap().id;
    users.update(&id, json!({"n": 1})).at(minute(20)).await.unwrap();
    users.delete(&id).at(minute(30)).await.unwrap();
    users.restore(&id).to_version(0).at(minute(40)).await.unwrap();

    let n_at =
        async |at: i64| users.get(&id).as_of(minute(at)).await.unwrap().map(|view| view.item["n"].clone());
    assert_eq!(n_at(9).await, None);
    assert_eq!(n_at(10).await, Some(json!(0)));
    assert_eq!(n_at(19).await, Some(json!(0)));
    assert_eq!(n_at(20).await, Some(json!(1)));
    assert_eq!(n_at(30).await, None);
    assert_eq!(n_at(39).await, None);
    assert_eq!(n_at(40).await, Some(json!(0)));
    let deleted = users.get(&id).as_of(minute(35)).include_deleted().await.unwrap().unwrap();
    assert_eq!((deleted.ov, deleted.deleted_at, &deleted.item["n"]), (2, Some(minute(30)), &json!(1)));

    let n_at_cv =
        async |cv: i64| users.get(&id).as_of_cv(cv).await.unwrap().map(|view| view.item["n"].clone());
    let past = [
        n_at_cv(-1).await,
        n_at_cv(0).await,
        n_at_cv(1).await,
        n_at_cv(2).await,
        n_at_cv(3).await,
        n_at_cv(99).await,
    ];
    assert_eq!(past, [None, Some(json!(0)), Some(json!(1)), None, Some(json!(0)), Some(json!(0))]);
    assert_eq!(users.get(&id).version(2).await.unwrap(), None, "a version that is a deletion shows nothing");
    assert!(users.get(&id).version(2).include_deleted().await.unwrap().is_some());
}

/// N-04, G-03, G-20.
async fn items_with_equal_versions_do_not_get_into_each_others_past(p: &Pairing) {
    let users = p.open().users();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let id = users.create(json!({ "name": name, "n": 0 })).at(minute(1)).await.unwrap().id;
        users.update(&id, json!({"n": 1})).at(minute(2)).await.unwrap();
        ids.push((name, id));
    }
    for (name, id) in &ids {
        let expected = json!({ "name": name, "n": 0 });
        assert_eq!(users.get(id).version(0).await.unwrap().unwrap().document(), expected);
        assert_eq!(users.get(id).as_of(minute(1)).await.unwrap().unwrap().document(), expected);
    }
    users.restore(&ids[1].1).to_version(0).await.unwrap();
    let now: Vec<_> = column(
        &users.list().sort("name", chronos_db::documents::Direction::Ascending).await.unwrap().items,
        "n",
    );
    assert_eq!(now, [json!(1), json!(0), json!(1)]);
}

/// D-15.
async fn a_list_as_of_a_time_is_what_it_was_then(p: &Pairing) {
    let users = p.open().users();
    let mut ids = Vec::new();
    for (name, status) in [("a", "active"), ("b", "active"), ("c", "passive"), ("d", "active")] {
        ids.push(users.create(json!({ "name": name, "status": status })).at(minute(1)).await.unwrap().id);
    }
    users.update(&ids[2], json!({"status": "active"})).at(minute(2)).await.unwrap();
    users.delete(&ids[3]).at(minute(3)).await.unwrap();
    // T is minute 5; nothing below may show in it.
    users.update(&ids[0], json!({"status": "passive"})).at(minute(6)).await.unwrap();
    users.delete(&ids[1]).at(minute(7)).await.unwrap();
    users.restore(&ids[3]).to_version(0).at(minute(8)).await.unwrap();
    users.create(json!({"name": "e", "status": "active"})).at(minute(9)).await.unwrap();

    let ascending = chronos_db::documents::Direction::Ascending;
    let active = || users.list().filter(json!({"status": "active"})).sort("name", ascending);
    let then = active().as_of(minute(5)).await.unwrap();
    assert_eq!(column(&then.items, "name"), [json!("a"), json!("b"), json!("c")]);
    assert_eq!(then.items[2].at, minute(2));
    let with_deleted = active().as_of(minute(5)).include_deleted().await.unwrap();
    assert_eq!(column(&with_deleted.items, "name"), [json!("a"), json!("b"), json!("c"), json!("d")]);
    assert_eq!(with_deleted.items[3].deleted_at, Some(minute(3)));
    assert_eq!(column(&active().await.unwrap().items, "name"), [json!("c"), json!("d"), json!("e")]);
    assert_eq!(active().as_of(minute(0)).await.unwrap().items, []);
}

async fn a_list_as_of_a_collection_version_pages_and_sorts_like_any_other(p: &Pairing) {
    let users = p.open().users();
    let mut ids = Vec::new();
    for n in 0..25 {
        ids.push(users.create(json!({ "n": n % 5, "k": n })).await.unwrap().id);
    }
    let then = users.stable_cv().await.unwrap();
    assert_eq!(then, 24);
    for id in &ids {
        users.update(id, json!({"n": 9})).await.unwrap();
    }
    users.delete(&ids[7]).await.unwrap();
    let descending = chronos_db::documents::Direction::Descending;
    let page = || {
        users.list().as_of_cv(then).filter(json!({"n": {"$gte": 1, "$lt": 4}})).sort("n", descending).limit(6)
    };
    let mut found = Vec::new();
    let mut next = None;
    loop {
        let list = page();
        let list = match next.take() {
            Some(token) => list.after(token),
            None => list,
        };
        let result = list.await.unwrap();
        assert!(result.items.len() <= 6);
        found.extend(
            result
                .items
                .iter()
                .map(|view| (view.item["n"].as_i64().unwrap(), view.item["k"].as_i64().unwrap())),
        );
        match result.next {
            Some(token) => next = Some(token),
            None => break,
        }
    }
    assert!(found.is_sorted_by_key(|(n, _)| -n), "{found:?}");
    let mut keys: Vec<i64> = found.iter().map(|(_, k)| *k).collect();
    keys.sort_unstable();
    let expected: Vec<i64> = (0..25).filter(|k| (1..4).contains(&(k % 5))).collect();
    assert_eq!(keys, expected);
}

/// A point of the past.
#[derive(Clone, Copy, Debug)]
enum Point {
    Minute(i64),
    Cv(i64),
}

/// Items that come, change, go, come back and are erased, by chance that is the same each time.
async fn eventful(users: &Collection, erasing: bool) -> Vec<ItemId> {
    let mut seed = 7_u32;
    let mut chance = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    let mut ids = Vec::new();
    for at in 0..160 {
        let at = minute(at);
        let document = |n: u32| json!({ "n": n % 5, "name": format!("name {}", n % 7), "k": n });
        if ids.len() < 24 && chance(4) == 0 || ids.is_empty() {
            // Some have no name: they come first.
            let mut new = document(chance(100));
            if chance(4) == 0 {
                new.as_object_mut().unwrap().remove("name");
            }
            ids.push(users.create(new).at(at).await.unwrap().id);
            continue;
        }
        let id = ids[chance(u32::try_from(ids.len()).unwrap()) as usize];
        let is_there = users.get(&id).await.unwrap().is_some();
        match chance(8) {
            0 if is_there => assert!(users.delete(&id).at(at).await.unwrap().changed),
            1 if !erasing => assert_eq!(users.restore(&id).to_version(0).at(at).await.unwrap().id, id),
            _ if is_there => {
                assert_eq!(users.update(&id, document(chance(100))).at(at).await.unwrap().id, id)
            }
            _ => {}
        }
    }
    ids
}

fn at_point(list: List, point: Point) -> List {
    match point {
        Point::Minute(at) => list.as_of(minute(at)),
        Point::Cv(cv) => list.as_of_cv(cv),
    }
}

/// Each item as it was, asked for one by one.
async fn one_by_one(users: &Collection, ids: &[ItemId], point: Point) -> Vec<View> {
    let gets = ids.iter().map(|id| {
        let get = users.get(id).include_deleted();
        match point {
            Point::Minute(at) => get.as_of(minute(at)),
            Point::Cv(cv) => get.as_of_cv(cv),
        }
        .into_future()
    });
    futures::future::try_join_all(gets).await.unwrap().into_iter().flatten().collect()
}

fn sort_key(view: &View, sort: &str) -> Json {
    match sort {
        "cv" => view.cv.into(),
        "ov" => view.ov.into(),
        "updatedAt" => view.at.as_millis().into(),
        "" => view.id.to_string().into(),
        property => view.item.get(property).cloned().unwrap_or(Json::Null),
    }
}

fn compare(a: &Json, b: &Json) -> Ordering {
    match (a.as_i64(), b.as_i64(), a.as_str(), b.as_str()) {
        (Some(a), Some(b), ..) => a.cmp(&b),
        (_, _, Some(a), Some(b)) => a.cmp(b),
        // Null before everything else.
        _ => b.is_null().cmp(&a.is_null()),
    }
}

/// R25: whichever way a list takes, it shows what `get` shows, in pages and as a whole.
async fn every_list_of_the_past_shows_what_its_items_were(p: &Pairing) {
    let users = p.open().users();
    let ids = eventful(&users, false).await;
    assert_lists(&users, &ids).await;
}

async fn no_list_of_the_past_shows_what_was_erased(p: &Pairing) {
    let users = p.open_with(&json!({ "logicalDelete": { "enabled": false } })).users();
    let ids = eventful(&users, true).await;
    assert_lists(&users, &ids).await;
}

async fn assert_lists(users: &Collection, ids: &[ItemId]) {
    let last = users.stable_cv().await.unwrap();
    type Matches = fn(&View) -> bool;
    let filters: [(Option<Json>, Matches); 3] = [
        (None, |_| true),
        (Some(json!({ "n": { "$gte": 1, "$lt": 4 } })), |view| {
            (1..4).contains(&view.item["n"].as_i64().unwrap())
        }),
        (Some(json!({ "name": { "$ne": "name 3" } })), |view| {
            view.item.get("name") != Some(&json!("name 3"))
        }),
    ];
    // Of long ago, when every item was another one, and of times since which few have changed.
    let minutes = [-1, 20, 130, 150, 155].map(Point::Minute);
    let numbers = [0, 40, last - 12, last - 5, last].map(Point::Cv);
    for point in minutes.into_iter().chain(numbers) {
        let then = one_by_one(users, ids, point).await;
        for (turn, sort) in ["", "n", "name", "cv", "ov", "updatedAt"].into_iter().enumerate() {
            for direction in [Direction::Ascending, Direction::Descending] {
                // Each order with another filter, and deleted items every second time.
                let (filter, matches) = &filters[(turn + usize::from(direction == Direction::Ascending)) % 3];
                let deleted = turn % 2 == 0;
                let mut expected: Vec<&View> =
                    then.iter().filter(|v| matches(v) && (deleted || v.deleted_at.is_none())).collect();
                expected.sort_by(|a, b| {
                    let order = compare(&sort_key(a, sort), &sort_key(b, sort)).then(a.id.cmp(&b.id));
                    if direction == Direction::Ascending || sort.is_empty() { order } else { order.reverse() }
                });
                let expected: Vec<(ItemId, i64)> = expected.iter().map(|view| (view.id, view.ov)).collect();
                let list = || {
                    let mut list = at_point(users.list(), point).limit(5);
                    if let Some(filter) = filter {
                        list = list.filter(filter.clone());
                    }
                    if !sort.is_empty() {
                        list = list.sort(sort, direction);
                    }
                    if deleted { list.include_deleted() } else { list }
                };
                let what = format!("{point:?} by `{sort}`, {direction:?}, {filter:?}");
                let all: Vec<View> = list().stream().await.unwrap().try_collect().await.unwrap();
                assert_eq!(
                    all.iter().map(|view| (view.id, view.ov)).collect::<Vec<_>>(),
                    expected,
                    "{what}, as a whole"
                );
                let (mut paged, mut next) = (Vec::new(), None::<String>);
                loop {
                    let page = match next.take() {
                        None => list().await.unwrap(),
                        Some(token) => list().after(token).await.unwrap(),
                    };
                    assert!(page.items.len() <= 5, "{what}");
                    paged.extend(page.items.iter().map(|view| (view.id, view.ov)));
                    next = page.next;
                    if next.is_none() {
                        break;
                    }
                }
                assert_eq!(paged, expected, "{what}, in pages");
            }
        }
    }
}
