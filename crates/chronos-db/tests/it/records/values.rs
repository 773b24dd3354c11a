//! What the values in documents mean: equal numbers, dates, types of Extended JSON, types of users.

use chronos_db::documents::Direction;
use chronos_db::{ErrorKind, Json, json};
use serde::{Deserialize, Serialize};

use super::pairing::{Pairing, column, document, on_every_pairing, refused};

on_every_pairing!(
    a_number_in_another_spelling_is_no_change_and_keeps_its_first_digits,
    names_that_json_libraries_use_among_themselves_are_names_like_others,
    dates_reach_to_the_end_of_9999_and_back_to_the_year_1,
    every_form_of_extended_json_is_found_by_its_value_and_comes_back_as_written,
    types_of_users_are_documents,
    what_cannot_be_json_is_refused,
    a_document_of_many_properties_is_indexed_in_proportion,
    a_lost_race_can_be_tried_again_and_an_expected_version_cannot,
);

fn parse(text: &str) -> Json {
    Json::parse(text).unwrap()
}

async fn a_number_in_another_spelling_is_no_change_and_keeps_its_first_digits(p: &Pairing) {
    let users = p.open().users();
    let first = r#"{"rate":2.50,"n":3,"list":[1,2.0],"deep":{"n":100},"zero":-0}"#;
    let id = users.create(parse(first)).await.unwrap().id;
    for same in
        [r#"{"rate":2.5}"#, r#"{"n":3.0}"#, r#"{"deep":{"n":1e2}}"#, r#"{"zero":0}"#, r#"{"list":[1.0,2]}"#]
    {
        assert!(!users.update(&id, parse(same)).await.unwrap().changed, "{same}");
        assert!(!users.enrich(&id, parse(same)).await.unwrap().changed, "{same}");
    }
    let again = r#"{"zero":0,"deep":{"n":1E2},"list":[1e0,2],"n":3.00,"rate":25e-1}"#;
    assert!(!users.replace(&id, parse(again)).await.unwrap().changed);
    assert_eq!(document(&users, &id).await.to_string(), first);
    assert!(users.update(&id, parse(r#"{"n":3.0000000000000000000001}"#)).await.unwrap().changed);
    assert_eq!(users.history(&id).await.unwrap().len(), 2);
}

async fn names_that_json_libraries_use_among_themselves_are_names_like_others(p: &Pairing) {
    let users = p.open().users();
    let text = r#"{"a":{"$serde_json::private::Number":"12"},"b":{"$serde_json::private::RawValue":"[1]"},"$serde_json::private::Number":"x"}"#;
    let id = users.create(parse(text)).await.unwrap().id;
    assert_eq!(document(&users, &id).await.to_string(), text);
    users.update(&id, json!({"c": 1})).await.unwrap();
    assert_eq!(document(&users, &id).await["a"], parse(text)["a"]);
}

async fn dates_reach_to_the_end_of_9999_and_back_to_the_year_1(p: &Pairing) {
    let leases = p.open().collection("leases");
    let dates = [
        ("first", "0001-01-01T00:00:00Z"),
        ("over", "2019-06-30T00:00:00+02:00"),
        ("soon", "2031-06-30"),
        ("open", "9999-12-31T23:59:59.999Z"),
    ];
    for (name, until) in dates {
        let id = leases.create(json!({"name": name, "until": {"$date": until}})).await.unwrap().id;
        assert_eq!(document(&leases, &id).await["until"]["$date"], until);
    }
    let names = async |filter: Json| {
        let found = leases.list().filter(filter).sort("until", Direction::Descending).await.unwrap();
        column(&found.items, "name").iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({"until": {"$gte": {"$date": "2026-07-01T00:00:00Z"}}})).await, ["open", "soon"]);
    assert_eq!(names(json!({"until": {"$date": "9999-12-31T23:59:59.999Z"}})).await, ["open"]);
    assert_eq!(names(json!({"until": {"$lt": {"$date": {"$numberLong": "0"}}}})).await, ["first"]);
    assert_eq!(names(json!({})).await, ["open", "soon", "over", "first"]);
    let at = chronos_db::Timestamp::parse("9999-12-31T23:59:59Z").unwrap();
    assert_eq!(leases.list().as_of(at).await.unwrap().items.len(), 4);
}

async fn every_form_of_extended_json_is_found_by_its_value_and_comes_back_as_written(p: &Pairing) {
    let people = p.open().collection("people");
    let forms = [
        r#"{"seen":{"$date":"1974-03-02T00:00:00Z"},"count":6}"#,
        r#"{"seen":{"$date":{"$numberLong":"-86400000"}},"count":{"$numberInt":"6"}}"#,
        r#"{"seen":{"$date":131414400000},"count":{"$numberLong":"6"}}"#,
        r#"{"seen":{"$date":"1974-03-02T00:00:00.000+0000"},"count":{"$numberDouble":"6.0"}}"#,
        r#"{"seen":{"$date":"1974-03-02"},"count":{"$numberDecimal":"6.00"}}"#,
    ];
    for text in forms {
        let id = people.create(parse(text)).await.unwrap().id;
        assert_eq!(document(&people, &id).await.to_string(), text);
        assert!(!people.replace(&id, parse(text)).await.unwrap().changed, "{text}");
    }
    let count = async |filter: Json| people.list().filter(filter).await.unwrap().items.len();
    for bound in [json!("1979-01-01"), json!(300_000_000_000_i64), json!({"$numberLong": "300000000000"})] {
        assert_eq!(count(json!({"seen": {"$lt": {"$date": bound}}})).await, forms.len());
    }
    for six in [json!(6), json!(6.0), json!({"$numberInt": "6"}), json!({"$numberDecimal": "6"})] {
        assert_eq!(count(json!({"count": six})).await, forms.len(), "{six}");
    }
    let uuid = json!({"$uuid": "c8edabc3-f738-4ca3-b68d-ab92a91478a3"});
    let binary = json!({"$binary": {"base64": "yO2rw/c4TKO2jauSqRR4ow==", "subType": "04"}});
    people.create(json!({"key": uuid})).await.unwrap();
    people.create(json!({"key": binary})).await.unwrap();
    assert_eq!((count(json!({"key": uuid})).await, count(json!({"key": binary})).await), (2, 2));
    for wrong in [
        json!({"$date": "soon"}),
        json!({"$numberInt": "x"}),
        json!({"$regularExpression": {"pattern": "a", "options": ""}}),
    ] {
        assert_eq!(refused(people.list().filter(json!({"key": wrong})).await), ErrorKind::Validation);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    name: String,
    balance: f64,
    more: Option<Json>,
}

async fn types_of_users_are_documents(p: &Pairing) {
    let users = p.open().users();
    let accounts = users.typed::<Account>();
    let first =
        Account { name: "a".to_owned(), balance: 1.5, more: Some(parse("[1.50,0.12345678901234567890123]")) };
    let made = accounts.create(&first).await.unwrap();
    let second = Account { name: "b".to_owned(), balance: 2.0, more: None };
    assert_eq!(accounts.replace(&made.id, &second).await.unwrap().ov, 1);
    assert_eq!(accounts.get(&made.id).await.unwrap().unwrap().document, second);
    let then = accounts.get(&made.id).version(0).await.unwrap().unwrap();
    assert_eq!(
        (then.ov, then.document.more.unwrap().to_string()),
        (0, "[1.50,0.12345678901234567890123]".to_owned())
    );
    accounts.create(&first).await.unwrap();
    let page = accounts.list().sort("balance", Direction::Ascending).limit(1).await.unwrap();
    assert_eq!(page.items[0].document, first);
    let rest = accounts.list().sort("balance", Direction::Ascending).after(page.next.unwrap()).await.unwrap();
    assert_eq!(rest.items[0].document, second);
    // By `serde_json`, too, and into it.
    let theirs = users.create(serde_json::json!({"name": "c", "balance": 3, "more": null})).await.unwrap();
    assert_eq!(accounts.get(&theirs.id).await.unwrap().unwrap().document.balance, 3.0);
    let value: serde_json::Value = users.get(&theirs.id).await.unwrap().unwrap().document_as().unwrap();
    assert_eq!(value, serde_json::json!({"name": "c", "balance": 3, "more": null}));
    users.update(&theirs.id, json!({"other": 1})).await.unwrap();
    let error = accounts.get(&theirs.id).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Validation && error.message().contains("unknown field `other`"),
        "{error}"
    );
}

async fn what_cannot_be_json_is_refused(p: &Pairing) {
    let users = p.open().users();
    let no_text = std::collections::HashMap::from([((1, 2), 3)]);
    let error = users.create(&no_text).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Validation && error.message().contains("key must be a string"),
        "{error}"
    );
    assert_eq!(refused(users.create(5).await), ErrorKind::Validation);
}

async fn a_document_of_many_properties_is_indexed_in_proportion(p: &Pairing) {
    const MANY: usize = 60_000;
    let wide = p.open().collection("wide");
    // Leaving out the largest one by one, each after a look at all others, would never end.
    let text =
        format!("{{{}}}", (0..MANY).map(|n| format!(r#""k{n:06}":{n}"#)).collect::<Vec<_>>().join(","));
    let id = wide.create(parse(&text)).await.unwrap().id;
    assert_eq!(document(&wide, &id).await.as_object().unwrap().len(), MANY);
    assert_eq!(
        wide.list().filter(json!({"k000001": 1})).await.unwrap().items.len(),
        1,
        "small ones are in the index"
    );
}

async fn a_lost_race_can_be_tried_again_and_an_expected_version_cannot(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"a": 1})).await.unwrap().id;
    users.update(&id, json!({"a": 2})).await.unwrap();
    let error = users.update(&id, json!({"a": 3})).expect_ov(0).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable(), error.ov()), (ErrorKind::OptimisticLock, false, Some(1)));
}
