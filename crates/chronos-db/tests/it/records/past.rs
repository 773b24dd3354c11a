//! Reading as of a point in the past.

use chronos_db::json;

use super::pairing::{Pairing, column, minute, on_every_pairing};

on_every_pairing!(
    an_item_reads_as_it_was_around_its_deletion,
    items_with_equal_versions_do_not_get_into_each_others_past,
    a_list_as_of_a_time_is_what_it_was_then,
    a_list_as_of_a_collection_version_pages_and_sorts_like_any_other,
);

async fn an_item_reads_as_it_was_around_its_deletion(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).at(minute(10)).await.unwrap().id;
    users.update(&id, json!({"n": 1})).at(minute(20)).await.unwrap();
    users.delete(&id).at(minute(30)).await.unwrap();
    users.restore(&id).to_version(0).at(minute(40)).await.unwrap();

    let n_at = async |at: i64| users.get(&id).as_of(minute(at)).await.unwrap().map(|view| view.item["n"].clone());
    assert_eq!(n_at(9).await, None);
    assert_eq!(n_at(10).await, Some(json!(0)));
    assert_eq!(n_at(19).await, Some(json!(0)));
    assert_eq!(n_at(20).await, Some(json!(1)));
    assert_eq!(n_at(30).await, None);
    assert_eq!(n_at(39).await, None);
    assert_eq!(n_at(40).await, Some(json!(0)));
    let deleted = users.get(&id).as_of(minute(35)).include_deleted().await.unwrap().unwrap();
    assert_eq!((deleted.ov, deleted.deleted_at, &deleted.item["n"]), (2, Some(minute(30)), &json!(1)));

    let n_at_cv = async |cv: i64| users.get(&id).as_of_cv(cv).await.unwrap().map(|view| view.item["n"].clone());
    let past = [n_at_cv(-1).await, n_at_cv(0).await, n_at_cv(1).await, n_at_cv(2).await, n_at_cv(3).await, n_at_cv(99).await];
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
    let now: Vec<_> = column(&users.list().sort("name", chronos_db::documents::Direction::Ascending).await.unwrap().items, "n");
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
    let page = || users.list().as_of_cv(then).filter(json!({"n": {"$gte": 1, "$lt": 4}})).sort("n", descending).limit(6);
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
        found.extend(result.items.iter().map(|view| (view.item["n"].as_i64().unwrap(), view.item["k"].as_i64().unwrap())));
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
