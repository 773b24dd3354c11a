//! Lists: filters, orders, pages.

use std::collections::BTreeSet;

use chronos_db::documents::Direction::{Ascending, Descending};
use chronos_db::{Collection, ErrorKind, Json, List, OnDamage, View, json};
use futures::TryStreamExt as _;

use super::pairing::{Pairing, column, on_every_pairing, refused};

on_every_pairing!(
    two_pages_are_disjoint_and_complete,
    a_list_filters_sorts_and_pages_in_the_database,
    a_filter_or_sort_by_what_is_not_indexed_is_refused,
    operators_that_are_not_on_the_list_are_refused,
    an_array_is_no_sort_key,
    a_date_stays_a_date_and_is_found_by_its_range,
    deleted_items_show_only_when_asked_for,
    built_in_properties_filter_and_sort,
    a_token_of_another_list_is_refused,
    a_stream_gives_the_whole_list,
    a_damaged_item_is_shown_with_its_error_where_that_is_asked_for,
    items_without_a_place_in_the_order_come_last_with_their_error_where_that_is_asked_for,
    a_property_that_no_document_has_is_reported,
    what_has_no_room_in_the_index_is_found_and_sorted_by_all_the_same,
);

/// All pages of a list, each no longer than `limit`.
async fn pages(list: impl Fn() -> List, limit: u32) -> Vec<Vec<chronos_db::View>> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let page = match next.take() {
            Some(token) => list().limit(limit).after(token),
            None => list().limit(limit),
        };
        let page = page.await.unwrap();
        assert!(page.items.len() <= limit as usize);
        all.push(page.items);
        match page.next {
            Some(token) => next = Some(token),
            None => return all,
        }
    }
}

async fn fill(users: &Collection, items: impl IntoIterator<Item = Json>) {
    futures::future::try_join_all(items.into_iter().map(|item| users.create(item).into_future()))
        .await
        .unwrap();
}

/// D-14.
async fn two_pages_are_disjoint_and_complete(p: &Pairing) {
    let users = p.open().users();
    fill(&users, (0..80).map(|n| json!({ "n": n }))).await;
    let first = users.list().await.unwrap();
    assert_eq!(first.items.len(), 50, "the default");
    let second = users.list().after(first.next.expect("there is more")).await.unwrap();
    assert_eq!((second.items.len(), second.next), (30, None));
    let all: BTreeSet<_> = first.items.iter().chain(&second.items).map(|view| view.id).collect();
    assert_eq!(all.len(), 80);
}

/// N-05, G-06, G-08.
async fn a_list_filters_sorts_and_pages_in_the_database(p: &Pairing) {
    let map =
        json!({"collectionMaps": {"users": {"indexedProps": ["status", "score", "address.city", "tags[]"]}}});
    let users = p.open_with(&map).users();
    fill(
        &users,
        (0..25).map(|n| {
            let status = if n % 5 == 0 { "passive" } else { "active" };
            json!({ "status": status, "score": n / 2, "address": {"city": format!("c{}", n % 3)}, "tags": [format!("t{}", n % 4)], "k": n })
        }),
    )
    .await;
    let three = pages(|| users.list().filter(json!({"status": "active"})).sort("score", Descending), 7).await;
    assert_eq!(three.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
    let scores: Vec<i64> = three.concat().iter().map(|view| view.item["score"].as_i64().unwrap()).collect();
    assert!(scores.is_sorted_by_key(|score| -score), "{scores:?}");
    let ids: BTreeSet<_> = three.concat().iter().map(|view| view.id).collect();
    assert_eq!(ids.len(), 20);

    let count = async |filter: Json| users.list().filter(filter).await.unwrap().items.len();
    assert_eq!(count(json!({"score": {"$gte": 3, "$lt": 5}})).await, 4);
    assert_eq!(count(json!({"address.city": "c1"})).await, 8);
    assert_eq!(count(json!({"tags": "t0"})).await, 7);
    assert_eq!(count(json!({"tags": {"$in": ["t0", "t1"]}, "status": {"$ne": "active"}})).await, 3);
    assert_eq!(count(json!({"$or": [{"score": 0}, {"address.city": {"$regex": "^c2"}}]})).await, 10);
    assert_eq!(count(json!({"score": {"$not": {"$gt": 1}}, "status": {"$exists": true}})).await, 4);
    assert_eq!(count(json!({"metaIndexed.status": "passive"})).await, 5, "the legacy library's spelling");
    let sorted =
        users.list().sort("address.city", Ascending).sort("score", Descending).limit(1000).await.unwrap();
    let keys: Vec<_> = sorted
        .items
        .iter()
        .map(|v| (v.item["address"]["city"].to_string(), -v.item["score"].as_i64().unwrap()))
        .collect();
    assert!(keys.is_sorted(), "{keys:?}");
}

/// N-05, G-61.
async fn a_filter_or_sort_by_what_is_not_indexed_is_refused(p: &Pairing) {
    let users = p.open_with(&json!({"collectionMaps": {"users": {"indexedProps": ["status"]}}})).users();
    users.create(json!({"status": "a", "secret": 1})).await.unwrap();
    let error = users.list().filter(json!({"secret": 1})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(error.message().contains("`secret`") && error.message().contains("status"), "{error}");
    assert_eq!(refused(users.list().sort("secret", Ascending).await), ErrorKind::Validation);
    assert_eq!(
        refused(users.list().as_of_cv(0).filter(json!({"$or": [{"status": 1}, {"secret": 1}]})).await),
        ErrorKind::Validation
    );
    assert!(users.list().filter(json!({"secret": 1})).stream().await.is_err());
}

async fn operators_that_are_not_on_the_list_are_refused(p: &Pairing) {
    let users = p.open().users();
    users.create(json!({"a": 1})).await.unwrap();
    let wrong = [
        json!({"$where": "true"}),
        json!({"a": {"$where": "true"}}),
        json!({"$expr": {"$eq": [1, 1]}}),
        json!({"a": {"$function": {}}}),
        json!({"a": {"$near": [0, 0]}}),
        json!({"a": {"$gt": 1, "b": 2}}),
        json!({"$and": {"a": 1}}),
        json!({"a": {"$regex": "("}}),
        json!(["a"]),
    ];
    for filter in wrong {
        assert_eq!(refused(users.list().filter(filter.clone()).await), ErrorKind::Validation, "{filter}");
        assert_eq!(
            refused(users.list().as_of_cv(0).filter(filter.clone()).await),
            ErrorKind::Validation,
            "{filter}"
        );
    }
}

async fn an_array_is_no_sort_key(p: &Pairing) {
    let users = p.open().users();
    users.create(json!({"tags": "one", "n": 1})).await.unwrap();
    let with_array = users.create(json!({"tags": ["a", "b"], "n": 2})).await.unwrap();
    for list in [users.list(), users.list().as_of_cv(1)] {
        let error = list.sort("tags", Ascending).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().contains("`tags`"), "{error}");
    }
    let streamed: Result<Vec<_>, _> =
        users.list().sort("tags", Ascending).stream().await.unwrap().try_collect().await;
    assert_eq!(refused(streamed), ErrorKind::Validation);
    users.delete(&with_array.id).await.unwrap();
    assert_eq!(users.list().sort("tags", Ascending).await.unwrap().items.len(), 1);
}

/// N-22, G-47.
async fn a_date_stays_a_date_and_is_found_by_its_range(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let born = json!({"$date": "1980-05-04T00:00:00Z"});
    let id = users.create(json!({ "born": born })).await.unwrap().id;
    users.create(json!({"born": {"$date": "2001-01-01T00:00:00Z"}})).await.unwrap();
    let found = async || {
        let range =
            json!({"born": {"$gte": {"$date": "1980-01-01"}, "$lt": {"$date": "1990-01-01T00:00:00Z"}}});
        users.list().filter(range).await.unwrap().items.iter().map(|view| view.id).collect::<Vec<_>>()
    };
    let is_date = async || {
        store.head(&users, &id).await.get_document("metaIndexed").unwrap().get_datetime("born").is_ok()
    };
    assert_eq!((found().await, is_date().await), (vec![id], true));
    users.enrich(&id, json!({"plan": "free"})).await.unwrap();
    assert_eq!((found().await, is_date().await), (vec![id], true));
    users.update(&id, json!({"plan": "paid"})).await.unwrap();
    users.restore(&id).to_version(1).await.unwrap();
    assert_eq!((found().await, is_date().await), (vec![id], true));
    assert_eq!(users.get(&id).await.unwrap().unwrap().item["born"], born);
}

async fn deleted_items_show_only_when_asked_for(p: &Pairing) {
    let users = p.open().users();
    let kept = users.create(json!({"n": 1})).await.unwrap();
    let gone = users.create(json!({"n": 2})).await.unwrap();
    let deleted = users.delete(&gone.id).await.unwrap();
    let listed = users.list().await.unwrap();
    assert_eq!(listed.items.iter().map(|view| view.id).collect::<Vec<_>>(), [kept.id]);
    let all = users.list().include_deleted().sort("n", Ascending).await.unwrap();
    assert_eq!(column(&all.items, "n"), [json!(1), json!(2)]);
    assert_eq!((all.items[0].deleted_at, all.items[1].deleted_at), (None, Some(deleted.at)));
}

async fn built_in_properties_filter_and_sort(p: &Pairing) {
    let users = p.open().users();
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(users.create(json!({ "n": n })).at(super::pairing::minute(n)).await.unwrap().id);
    }
    users.update(&ids[1], json!({"n": 11})).at(super::pairing::minute(10)).await.unwrap();
    let found = async |list: List| column(&list.await.unwrap().items, "n");
    assert_eq!(found(users.list().sort("updatedAt", Descending).limit(2)).await, [json!(11), json!(3)]);
    assert_eq!(found(users.list().filter(json!({"ov": 1}))).await, [json!(11)]);
    assert_eq!(
        found(users.list().filter(json!({"cv": {"$lte": 2}})).sort("cv", Ascending)).await,
        [json!(0), json!(2)]
    );
    assert_eq!(found(users.list().filter(json!({"id": {"$in": [ids[3].to_string()]}}))).await, [json!(3)]);
    let minute_1 = super::pairing::minute(1).to_string();
    assert_eq!(found(users.list().filter(json!({"createdAt": {"$lt": minute_1}}))).await, [json!(0)]);
    assert_eq!(refused(users.list().filter(json!({"id": "no id"})).await), ErrorKind::Validation);
    assert_eq!(refused(users.list().filter(json!({"createdAt": "yesterday"})).await), ErrorKind::Validation);
}

async fn a_token_of_another_list_is_refused(p: &Pairing) {
    let users = p.open().users();
    fill(&users, (0..3).map(|n| json!({ "n": n }))).await;
    let token = users.list().sort("n", Ascending).limit(1).await.unwrap().next.unwrap();
    assert_eq!(refused(users.list().sort("n", Descending).after(&*token).await), ErrorKind::Validation);
    assert_eq!(refused(users.list().after(&*token).await), ErrorKind::Validation);
    assert_eq!(refused(users.list().sort("n", Ascending).after("nonsense").await), ErrorKind::Validation);
    assert_eq!(users.list().sort("n", Ascending).after(&*token).await.unwrap().items.len(), 2);
}

async fn a_stream_gives_the_whole_list(p: &Pairing) {
    let users = p.open().users();
    fill(&users, (0..300).map(|n| json!({ "n": n }))).await;
    for list in [users.list(), users.list().as_of_cv(299)] {
        let list = list.filter(json!({"n": {"$gte": 10}})).sort("n", Descending).limit(5);
        let all: Vec<_> = list.stream().await.unwrap().try_collect().await.unwrap();
        let expected: Vec<Json> = (10..300).rev().map(|n| json!(n)).collect();
        assert_eq!(column(&all, "n"), expected);
    }
}

/// What is wrong with items, by a property of theirs or their place in the list.
fn damages(views: &[View]) -> Vec<Option<&str>> {
    views.iter().map(|view| view.damage.as_ref().map(|damage| damage.code.as_str())).collect()
}

/// R22.
async fn a_damaged_item_is_shown_with_its_error_where_that_is_asked_for(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = store.users();
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(users.create(json!({ "n": n })).ack_stored().await.unwrap().id);
    }
    assert_eq!(users.flush(super::pairing::TIMEOUT).await.unwrap(), 0);
    let cv = users.stable_cv().await.unwrap();
    users.update(&ids[5], json!({"n": 50})).ack_stored().await.unwrap();
    let key = |n: usize| format!("users/{}/v0/item.json", ids[n]);
    store.bucket().delete(&key(1)).await.unwrap();
    store.bucket().put(&key(3), "{}".into(), Default::default()).await.unwrap();
    store.is_damaged();
    for list in [users.list(), users.list().as_of_cv(cv)] {
        let list = list.sort("n", Ascending);
        assert_eq!(refused(list.clone().await), ErrorKind::Storage, "as ever");
        assert!(list.clone().stream().await.unwrap().try_collect::<Vec<_>>().await.is_err());
        let list = list.on_damage(OnDamage::Show);
        let page = list.clone().limit(4).await.unwrap();
        assert_eq!(damages(&page.items), [None, Some("STORAGE_ERROR"), None, Some("STORAGE_ERROR")]);
        assert_eq!((page.items[1].id, &page.items[1].item, page.items[1].ov), (ids[1], &Json::Null, 0));
        assert_eq!(page.items[1].to_json()["error"]["code"], "STORAGE_ERROR");
        assert_eq!(page.items[2].item["n"], json!(2));
        let rest = list.clone().limit(4).after(page.next.unwrap()).await.unwrap();
        assert_eq!((damages(&rest.items), rest.next), (vec![None, None], None));
        let all: Vec<View> = list.stream().await.unwrap().try_collect().await.unwrap();
        assert_eq!(damages(&all).iter().filter(|damage| damage.is_some()).count(), 2);
        assert_eq!(all.len(), 6);
    }
}

/// R22: the others are in order, in pages and as a whole, on every engine.
async fn items_without_a_place_in_the_order_come_last_with_their_error_where_that_is_asked_for(p: &Pairing) {
    let users = p.open().users();
    let values = [
        json!(["b"]),
        json!("c"),
        json!([]),
        json!("a"),
        json!([null, 1]),
        json!("d"),
        json!({"0": "x"}),
        json!([["e"]]),
        Json::Null,
    ];
    for (n, value) in values.iter().enumerate() {
        users
            .create(json!({ "tags": value, "deep": { "tags": value }, "list": [{ "tags": n }], "n": n }))
            .await
            .unwrap();
    }
    let cv = users.stable_cv().await.unwrap();
    for point in [None, Some(cv)] {
        if point.is_some() {
            let first = users.list().filter(json!({"n": 3})).await.unwrap().items.remove(0).id;
            users.update(&first, json!({"tags": ["now"]})).await.unwrap();
        }
        let list = || point.map_or(users.list(), |cv| users.list().as_of_cv(cv));
        for sort in ["tags", "deep.tags"] {
            for (direction, in_order) in [(Ascending, [8, 3, 1, 5, 6]), (Descending, [6, 5, 1, 3, 8])] {
                assert_eq!(refused(list().sort(sort, direction).await), ErrorKind::Validation, "as ever");
                let list = || list().sort(sort, direction).on_damage(OnDamage::Show);
                let expected: Vec<Json> = in_order.iter().chain(&[0, 2, 4, 7]).map(|n| json!(n)).collect();
                let all: Vec<View> = list().stream().await.unwrap().try_collect().await.unwrap();
                assert_eq!(column(&all, "n"), expected, "{sort} {direction:?}");
                let expected_damages = [vec![None; 5], vec![Some("VALIDATION_ERROR"); 4]].concat();
                assert_eq!(damages(&all), expected_damages);
                for limit in [1, 2, 5, 7, 9] {
                    // Objects end no page.
                    if limit == 1 || (limit == 5 && direction == Ascending) {
                        continue;
                    }
                    let paged = pages(|| list().filter(json!({"n": {"$ne": 6}})), limit).await.concat();
                    let expected: Vec<Json> = expected.iter().filter(|n| **n != json!(6)).cloned().collect();
                    assert_eq!(column(&paged, "n"), expected, "{sort} {direction:?} in pages of {limit}");
                }
            }
        }
        let inside = list().sort("list.tags", Ascending).on_damage(OnDamage::Show).await.unwrap();
        assert_eq!(damages(&inside.items), [Some("VALIDATION_ERROR"); 9]);
    }
}

/// F19.
async fn a_property_that_no_document_has_is_reported(p: &Pairing) {
    let users = p.open().users();
    let unknown = async |list: List| list.await.unwrap().unknown;
    assert_eq!(
        unknown(users.list().sort("price", Ascending)).await,
        Vec::<String>::new(),
        "nothing is known of an empty collection"
    );
    for n in 0..3 {
        users.create(json!({ "n": n, "none": null, "a": {"b": n} })).await.unwrap();
    }
    let cv = users.stable_cv().await.unwrap();
    let id = users.create(json!({ "late": 1 })).await.unwrap().id;
    assert_eq!(unknown(users.list().sort("price:desc", Ascending)).await, ["price:desc"]);
    assert_eq!(unknown(users.list().filter(json!({"m": 1, "n": 99}))).await, ["m"]);
    assert_eq!(
        unknown(users.list().filter(json!({"m": null})).sort("x", Ascending).sort("n", Ascending)).await,
        ["x"]
    );
    for known in [json!({"n": 99}), json!({"a.b": 99}), json!({"none": 1}), json!({"late": 99})] {
        assert_eq!(unknown(users.list().filter(known.clone())).await, Vec::<String>::new(), "{known}");
    }
    assert_eq!(unknown(users.list().sort("a.b", Descending)).await, Vec::<String>::new());
    assert_eq!(unknown(users.list().as_of_cv(cv).filter(json!({"x": 1}))).await, ["x"]);
    users.replace(&id, json!({ "n": 7 })).await.unwrap();
    assert_eq!(unknown(users.list().filter(json!({"late": 1}))).await, ["late"]);
    assert_eq!(
        unknown(users.list().as_of_cv(cv + 1).filter(json!({"late": 9}))).await,
        Vec::<String>::new(),
        "there was one then"
    );
    assert_eq!(
        users.list().filter(json!({"m": 1, "n": 1})).sort("x", Ascending).unknown_properties().await.unwrap(),
        ["m", "x"]
    );
}

/// F4: lists by what an entry lacks look at the documents, now and as of a point, in pages and as a whole.
async fn what_has_no_room_in_the_index_is_found_and_sorted_by_all_the_same(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let large = |n: usize| n.is_multiple_of(3);
    let document = |n: usize, key: usize| {
        let pad = "x".repeat(if large(n) { 70_000 } else { 3 });
        json!({ "n": n, "big": {"key": key, "pad": pad}, "other": if n.is_multiple_of(6) { "y".repeat(66_000) } else { "y".into() }, "kind": n % 2 })
    };
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(users.create(document(n, (n * 7) % 12)).await.unwrap().id);
    }
    let cv = users.stable_cv().await.unwrap();
    for n in [3, 4] {
        users.replace(&ids[n], json!({ "n": n, "big": {"key": -1} })).await.unwrap();
    }
    for (n, expected) in [(0, json!(["big", "other"])), (1, Json::Null), (3, Json::Null), (9, json!("big"))] {
        let head = store.head(&users, &ids[n]).await;
        assert_eq!(head.get("notIndexed").map_or(Json::Null, chronos_db::bson_to_json), expected, "{n}");
    }
    let notes = store
        .stored(&users, "counter")
        .await
        .into_iter()
        .filter(|note| note.get_str("_id").ok() == Some("notIndexed"));
    assert_eq!(notes.count(), 1);

    let sorted = |mut ns: Vec<usize>, key: &dyn Fn(usize) -> i64| {
        ns.sort_by_key(|n| key(*n));
        ns.into_iter().map(|n| json!(n)).collect::<Vec<Json>>()
    };
    let then = |n: usize| i64::try_from((n * 7) % 12).unwrap();
    let now = |n: usize| if n == 3 || n == 4 { -1 } else { then(n) };
    for (what, key, list) in
        [("now", &now as &dyn Fn(usize) -> i64, users.list()), ("then", &then, users.list().as_of_cv(cv))]
    {
        let list = || list.clone();
        let all = sorted((0..12).collect(), key);
        for limit in [3, 5, 100] {
            let paged =
                pages(|| list().sort("big.key", Ascending).sort("n", Ascending), limit).await.concat();
            assert_eq!(column(&paged, "n"), all, "{what} in pages of {limit}");
        }
        let streamed: Vec<View> = list()
            .sort("big.key", Descending)
            .sort("n", Descending)
            .stream()
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            column(&streamed, "n"),
            all.iter().rev().cloned().collect::<Vec<_>>(),
            "{what} as a whole"
        );
        let found = async |filter: Json| {
            column(&list().filter(filter).sort("n", Ascending).await.unwrap().items, "n")
        };
        let of = |keep: &dyn Fn(usize) -> bool| {
            sorted((0..12).filter(|n| keep(*n)).collect(), &|n| i64::try_from(n).unwrap())
        };
        assert_eq!(found(json!({"big.key": {"$gte": 5}})).await, of(&|n| key(n) >= 5), "{what}");
        assert_eq!(found(json!({"big.key": {"$not": {"$gte": 5}}})).await, of(&|n| key(n) < 5), "{what}");
        assert_eq!(found(json!({"big": {"$exists": false}})).await, of(&|_| false), "{what}");
        let is_padded = |n: usize| large(n) && !(what == "now" && n == 3);
        assert_eq!(found(json!({"big.pad": {"$regex": "^xxxx"}})).await, of(&is_padded), "{what}");
        assert_eq!(
            found(json!({"other": "y".repeat(66_000), "kind": 0})).await,
            of(&|n| n % 6 == 0),
            "{what}"
        );
        assert_eq!(
            found(json!({"kind": 1})).await,
            of(&|n| n % 2 == 1 && !(what == "now" && n == 3)),
            "{what}"
        );
        let by_id = list().filter(json!({"big.key": {"$lt": 4}}));
        assert_eq!(by_id.clone().await.unwrap().items.len(), of(&|n| key(n) < 4).len(), "{what}");
        assert_eq!(pages(|| by_id.clone(), 2).await.concat().len(), of(&|n| key(n) < 4).len(), "{what}");
        assert_eq!(
            by_id.stream().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(),
            of(&|n| key(n) < 4).len(),
            "{what}"
        );
        assert_eq!(list().filter(json!({"big.pad": "nothing"})).await.unwrap().unknown, Vec::<String>::new());
    }
    // A handle that has not heard of it asks.
    if p.kind != super::pairing::Kind::EmbeddedMemory {
        let again = p.open().users();
        assert_eq!(again.list().filter(json!({"big.key": {"$gte": 0}})).await.unwrap().items.len(), 10);
    }
}
