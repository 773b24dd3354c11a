//! What a document may hold, and that it comes back as it was.

use chronos_db::{ErrorKind, Json, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, json};

use super::pairing::{Pairing, document, on_every_pairing, refused};

on_every_pairing!(
    numbers_keep_every_digit,
    an_indexed_number_has_to_fit_the_index,
    keys_the_database_could_not_name_are_kept_and_not_indexed,
    a_document_of_16_mib_comes_back_whole_and_a_larger_one_is_refused,
    nesting_is_bounded_whichever_write_makes_it_deep,
    an_index_entry_is_bounded,
    an_update_operator_is_refused_and_any_other_dollar_name_is_a_property,
);

fn parse(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn only_id() -> Json {
    json!({"collectionMaps": {"users": {"indexedProps": ["id"]}}})
}

async fn numbers_keep_every_digit(p: &Pairing) {
    let users = p.open_with(&only_id()).users();
    let text = r#"{"id":1,"big":12345678901234567890,"huge":1e400,"one":1.0,"tiny":0.1000,"minus":-0.0,"list":[1.50,{"x":2E5}]}"#;
    let id = users.create(parse(text)).await.unwrap().id;
    let read = async || document(&users, &id).await.to_string();
    assert_eq!(read().await, parse(text).to_string());
    users.update(&id, json!({"more": 1})).ack_stored().await.unwrap();
    users.enrich(&id, json!({"most": 1})).ack_stored().await.unwrap();
    let expected = text.replace('}', "").replace("2E5]", "2E5}],") + r#""more":1,"most":1}"#;
    assert_eq!(read().await, parse(&expected).to_string(), "also after a merge");
}

async fn an_indexed_number_has_to_fit_the_index(p: &Pairing) {
    let store = p.open_with(&only_id());
    let users = store.users();
    for number in ["1e+400", "12345678901234567890", "-9223372036854775809"] {
        let error = users.create(parse(&format!(r#"{{"id":{number}}}"#))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().contains("`id`") && error.message().contains(number), "{error}");
    }
    let unmapped = store.collection("unmapped");
    assert_eq!(
        refused(unmapped.create(parse(r#"{"n":1e400}"#)).await),
        ErrorKind::Validation,
        "everything is indexed here"
    );
    for number in ["9223372036854775807", "-9223372036854775808", "1e300", "1.0"] {
        let id = users.create(parse(&format!(r#"{{"id":{number}}}"#))).await.unwrap().id;
        assert_eq!(
            document(&users, &id).await.to_string(),
            parse(&format!(r#"{{"id":{number}}}"#)).to_string()
        );
        let found = users.list().filter(parse(&format!(r#"{{"id":{number}}}"#))).await.unwrap();
        assert_eq!(found.items.len(), 1, "{number}");
    }
}

async fn keys_the_database_could_not_name_are_kept_and_not_indexed(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let text = r#"{"a.b":1,"$set":{"x":2},"":3,"n":{"c.d":4,"$e":5,"f":6},"list":[{"g.h":7}],"ü":"ß","__proto__":8}"#;
    let id = users.create(parse(text)).await.unwrap().id;
    assert_eq!(document(&users, &id).await, parse(text));
    users.enrich(&id, json!({"a.b": [2]})).ack_stored().await.unwrap();
    assert_eq!(document(&users, &id).await["a.b"], json!([2]));
    let head = store.head(&users, &id).await;
    let indexed = head.get_document("metaIndexed").unwrap();
    let names: Vec<&str> = indexed.keys().map(String::as_str).collect();
    assert_eq!(names, ["n", "list", "ü", "__proto__"]);
    assert_eq!(indexed.get_document("n").unwrap().keys().collect::<Vec<_>>(), ["f"]);
    assert_eq!(users.list().filter(json!({"n.f": 6})).await.unwrap().items.len(), 1);
}

async fn a_document_of_16_mib_comes_back_whole_and_a_larger_one_is_refused(p: &Pairing) {
    let store = p.opening().with(&only_id()).without_cache().open();
    let users = store.users();
    let frame = json!({"id": 1, "text": ""}).to_string().len();
    let largest = json!({"id": 1, "text": "x".repeat(MAX_DOCUMENT_BYTES - frame)});
    let id = users.create(largest.clone()).await.unwrap().id;
    assert!(document(&users, &id).await == largest);
    let larger = json!({"id": 2, "text": "x".repeat(MAX_DOCUMENT_BYTES - frame + 1)});
    assert_eq!(refused(users.create(larger.clone()).await), ErrorKind::Validation);
    assert_eq!(refused(users.replace(&id, larger).await), ErrorKind::Validation);
    assert_eq!(
        refused(users.update(&id, json!({"more": 1})).await),
        ErrorKind::Validation,
        "the merged document counts"
    );
    assert_eq!(users.get(&id).await.unwrap().unwrap().ov, 0);
}

async fn nesting_is_bounded_whichever_write_makes_it_deep(p: &Pairing) {
    let users = p.open_with(&only_id()).users();
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
    let id = users.create(deep(MAX_DOCUMENT_DEPTH)).await.unwrap().id;
    assert_eq!(document(&users, &id).await, deep(MAX_DOCUMENT_DEPTH));
    let too_deep = deep(MAX_DOCUMENT_DEPTH + 1);
    assert_eq!(refused(users.create(too_deep.clone()).await), ErrorKind::Validation);
    assert_eq!(refused(users.update(&id, too_deep.clone()).await), ErrorKind::Validation);
    assert_eq!(refused(users.replace(&id, too_deep.clone()).await), ErrorKind::Validation);
    assert_eq!(refused(users.enrich(&id, too_deep).await), ErrorKind::Validation);
}

/// G-16: without declared paths the largest properties stay out of the index; declared ones are refused.
async fn an_index_entry_is_bounded(p: &Pairing) {
    let store = p.open_with(&only_id());
    let others = store.collection("others");
    let id = others.create(json!({"small": 1, "large": "x".repeat(100_000)})).await.unwrap().id;
    let head = store.head(&others, &id).await;
    assert_eq!(head.get_document("metaIndexed").unwrap(), &bson::doc! { "small": 1 });
    assert_eq!(
        refused(store.users().create(json!({"id": "x".repeat(100_000)})).await),
        ErrorKind::Validation
    );
}

async fn an_update_operator_is_refused_and_any_other_dollar_name_is_a_property(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"a": 1, "$ref": "x"})).await.unwrap().id;
    for operator in ["$set", "$unset", "$inc", "$push"] {
        let fields = json!({ operator: {"a": 2} });
        for error in [
            users.update(&id, fields.clone()).await.unwrap_err(),
            users.enrich(&id, fields).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Validation);
            assert!(error.message().contains(operator), "{error}");
        }
    }
    users.update(&id, json!({"$ref": "y"})).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"a": 1, "$ref": "y"}));
}
