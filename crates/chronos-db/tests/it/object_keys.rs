//! The layout of keys: builders, their inverses, and what they refuse.

use chronos_db::ErrorKind;
use chronos_db::objects::keys::{self, ItemKey, ManifestKey, PropertyKey, Rendition};
use proptest::prelude::*;

const ID: &str = "65f0a1b2c3d4e5f607182930";

#[test]
fn an_items_key_lower_cases_the_collection_and_its_object_id() {
    assert_eq!(
        keys::item("DOCUMENTS", &ID.to_uppercase(), 3, None).unwrap(),
        format!("documents/{ID}/v3/item.json")
    );
    assert_eq!(
        keys::item("documents", ID, 0, Some("a1B2")).unwrap(),
        format!("documents/{ID}/v0/item.a1B2.json")
    );
    // Other ids than object ids may differ in case alone.
    assert_eq!(keys::item("documents", "Cust-A", 0, None).unwrap(), "documents/Cust-A/v0/item.json");
}

#[test]
fn a_propertys_key_comes_after_the_id_and_keeps_its_case() {
    let key = |property| keys::property("documents", ID, 3, property, Rendition::Blob, None).unwrap();
    assert_eq!(key("content"), format!("documents/{ID}/v3/content/blob.bin"));
    assert_ne!(key("fileA"), key("filea"));
    let text = keys::property("documents", ID, 3, "content", Rendition::Text, Some("7f")).unwrap();
    assert_eq!(text, format!("documents/{ID}/v3/content/text.7f.txt"));
}

#[test]
fn a_manifests_key_names_its_month_and_cv() {
    assert_eq!(
        keys::manifest("Documents", 2024, 3, 123, None).unwrap(),
        "__manifests__/documents/2024/03/snapshot-123.json.gz"
    );
    assert_eq!(
        keys::manifest("documents", 2024, 3, 123, Some("9c")).unwrap(),
        "__manifests__/documents/2024/03/snapshot-123.9c.json.gz"
    );
}

#[test]
fn prefixes_end_with_a_slash_and_cover_the_properties() {
    assert_eq!(keys::item_prefix("Documents", ID).unwrap(), format!("documents/{ID}/"));
    assert_eq!(keys::version_prefix("Documents", ID, 2).unwrap(), format!("documents/{ID}/v2/"));
    assert_eq!(keys::collection_prefix("Documents").unwrap(), "documents/");
    assert_eq!(keys::manifests_prefix("Documents").unwrap(), "__manifests__/documents/");
    assert_eq!(keys::manifests_of_month("Documents", 2024, 3).unwrap(), "__manifests__/documents/2024/03/");
    assert!(
        keys::property("documents", ID, 2, "p", Rendition::Blob, None)
            .unwrap()
            .starts_with(&keys::item_prefix("documents", ID).unwrap())
    );
}

#[test]
fn what_makes_no_sense_in_a_key_is_refused() {
    let long = "x".repeat(201);
    let refused = [
        keys::item("", ID, 0, None),
        keys::item("  ", ID, 0, None),
        keys::item("c", "", 0, None),
        keys::item("c", ID, -1, None),
        keys::item("c", ID, 0, Some("")),
        keys::item("c", ID, 0, Some("a.b")),
        keys::item("c", ID, 0, Some("a/b")),
        keys::item(&long, ID, 0, None),
        keys::item("__Manifests__", ID, 0, None),
        keys::property("c", ID, 0, "", Rendition::Blob, None),
        keys::property("c", ID, 0, &long, Rendition::Blob, None),
        keys::property("c", ID, 0, &"/".repeat(67), Rendition::Blob, None),
        keys::manifest("", 2024, 1, 0, None),
        keys::manifest("c", 99, 1, 0, None),
        keys::manifest("c", 10_000, 1, 0, None),
        keys::manifest("c", 2024, 0, 0, None),
        keys::manifest("c", 2024, 13, 0, None),
        keys::manifest("c", 2024, 1, -1, None),
    ];
    for (n, result) in refused.into_iter().enumerate() {
        assert_eq!(result.expect_err(&n.to_string()).kind(), ErrorKind::Validation, "{n}");
    }
}

#[test]
fn no_name_leaves_its_segment() {
    for (name, segment) in [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".a.", "%2Ea%2E"),
        ("a\\b", "a%5Cb"),
        ("a\nb", "a%0Ab"),
        ("50%", "50%25"),
        ("a[].b", "a%5B%5D.b"),
    ] {
        let key = keys::property("c", ID, 0, name, Rendition::Blob, None).unwrap();
        assert_eq!(key, format!("c/{ID}/v0/{segment}/blob.bin"));
        assert_eq!(keys::parse_property(&key).unwrap().property, name);
    }
}

#[test]
fn parsers_refuse_every_other_shape() {
    for key in [
        "",
        "c/i/v0",
        "c/i/v0/",
        "c/i/v-1/item.json",
        "c/i/v3.5/item.json",
        "c/i/v03/item.json",
        "c/i/v+3/item.json",
        "c/i/3/item.json",
        "C/i/v3/item.json",
        "c/i/v3/item.jsonx",
        "c/i/v3/itemjson",
        "c/i/v3/item..json",
        "c/i/v3/item.a.b.json",
        "c/i/v3/x/item.json",
        "c//v3/item.json",
        "c/%69/v3/item.json",
        "c/a%2fb/v3/item.json",
        "c/65F0A1B2C3D4E5F607182930/v3/item.json",
        "c/i/v99999999999999999999/item.json",
        "/c/i/v3/item.json",
    ] {
        assert_eq!(keys::parse_item(key), None, "{key}");
    }
    for key in [
        "c/i/v0/p/blob.txt",
        "c/i/v0/p/text.bin",
        "c/i/v0/blob.bin",
        "c/p/i/v0/blob.bin",
        "c/i/v0/p/q/blob.bin",
        "c/i/v0/item.json",
    ] {
        assert_eq!(keys::parse_property(key), None, "{key}");
    }
    for key in [
        "__manifests__/c/2024/13/snapshot-1.json.gz",
        "__manifests__/c/99/01/snapshot-1.json.gz",
        "__manifests__/c/2024/1/snapshot-1.json.gz",
        "__manifests__/c/2024/01/snapshot--1.json.gz",
        "__manifests__/c/2024/01/snapshot-01.json.gz",
        "__manifests__/c/2024/01/snapshot-1.json",
        "__manifests__/c/2024/01/x/snapshot-1.json.gz",
        "manifests/c/2024/01/snapshot-1.json.gz",
    ] {
        assert_eq!(keys::parse_manifest(key), None, "{key}");
    }
}

fn suffix() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[A-Za-z0-9]{1,32}")
}

proptest! {
    #[test]
    fn parsing_undoes_building(
        collection in "\\PC{1,14}", id in "\\PC{1,14}", path in "(?s).{1,12}", ov in 0..i64::MAX, suffix in suffix(),
        year in 1000..=9999_i16, month in 1..=12_i8, text in any::<bool>(), random in any::<u64>(),
    ) {
        prop_assume!(![&collection, &id, &path].iter().any(|name| name.trim().is_empty()));
        let lower = collection.to_lowercase();
        prop_assume!(lower != "__manifests__");
        let key = keys::item(&collection, &id, ov, suffix.as_deref())?;
        prop_assert_eq!(keys::parse_item(&key), Some(ItemKey { collection: lower.clone(), id: id.clone(), ov, suffix: suffix.clone() }));
        prop_assert_eq!(keys::parse_property(&key), None);
        let rendition = if text { Rendition::Text } else { Rendition::Blob };
        let key = keys::property(&collection, &id, ov, &path, rendition, suffix.as_deref())?;
        prop_assert_eq!(key.split('/').count(), 5);
        let expected = PropertyKey { collection: lower.clone(), id, ov, property: path, rendition, suffix: suffix.clone() };
        prop_assert_eq!(keys::parse_property(&key), Some(expected));
        prop_assert_eq!(keys::parse_item(&key), None);
        // So far no collection is.
        let ov = ov % 1_000_000_000_000_000_000;
        let key = keys::manifest(&collection, year, month, ov, suffix.as_deref())?;
        prop_assert_eq!(keys::parse_manifest(&key), Some(ManifestKey { collection: lower.clone(), year, month, cv: ov, attempt: None, suffix }));
        let key = keys::manifest_of_attempt(&collection, year, month, ov, random)?;
        let attempt = Some(random % 1_000_000_000_000_000_000);
        prop_assert_eq!(keys::parse_manifest(&key), Some(ManifestKey { collection: lower, year, month, cv: ov, attempt, suffix: None }));
        prop_assert_eq!(keys::parse_item(&key), None);
        prop_assert_eq!(keys::parse_property(&key), None);
    }

    #[test]
    fn what_a_parser_takes_is_what_its_builder_makes(key in "(__manifests__/)?[a-cA-C%2E./]{1,8}/[0-9a-f.]{1,6}/v?[0-9]{1,3}/(item|blob|text|p/blob)\\.[a-z.]{1,8}") {
        if let Some(item) = keys::parse_item(&key) {
            prop_assert_eq!(keys::item(&item.collection, &item.id, item.ov, item.suffix.as_deref())?, key);
        }
    }
}
