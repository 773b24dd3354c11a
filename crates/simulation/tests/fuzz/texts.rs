//! Texts: configuration, filters, documents, lines of imports, keys, times, connection strings.

use std::path::Path;

use bson::{Bson, doc};
use chronos_db::config::Config;
use chronos_db::documents::filter;
use chronos_db::objects::keys;
use chronos_db::{ImportOp, Json, Timestamp, json, json_to_bson};
use chronow::hot::DeliverPolicy;

use super::{bounded, inputs, mutate};

fn configuration() -> String {
    json!({
        "dbConnections": {"main": {"mongoUri": "mongodb://user:pw@localhost:27017,other:1/?replicaSet=rs0&w=1&timeoutMS=5"}},
        "spacesConnections": {"s3": {"endpoint": "https://s3.amazonaws.com", "region": "eu-1", "accessKey": "ak", "secretKey": "sk"}},
        "databases": {
            "runtime": {"tenantDatabases": [{"tenantId": "acme", "dbConnRef": "main", "spaceConnRef": "s3", "bucket": "b", "dbName": "acme"}]}
        },
        "retention": {"ver": {"days": 30, "maxPerItem": 10}},
        "rollup": {"enabled": true, "manifestPeriod": "daily"},
        "counterRules": {"rules": [{"name": "r", "on": ["CREATE"], "scope": "meta", "when": {"a": {"$gt": 1}}}]},
        "collectionMaps": {"users": {"indexedProps": ["email", "a.b[]"], "base64Props": {}}},
        "fallback": {"enabled": true, "maxAttempts": 3},
        "chronow": {"redis": {"url": "redis://localhost:6379"}, "defaults": {"visibilityMs": 1000, "backoffMs": [1, 2]}}
    })
    .to_string()
}

#[test]
fn configuration_and_connection_strings() {
    let valid = configuration();
    bounded("configuration", inputs(1), |chance| {
        let text = mutate::text(chance, &valid);
        let read = Config::parse(&text, Path::new("/etc/app"));
        // What is accepted can be said.
        if let Ok(config) = read {
            assert!(!config.describe().to_string().is_empty());
        }
        if let Ok(document) = Json::parse(&text) {
            let _ = chronow::Config::from_json(&document["chronow"]);
        }
        let uri =
            mutate::text(chance, "mongodb://u:p@h1:1,h2/db?replicaSet=r&readPreference=nearest&tls=true");
        let document = json!({
            "dbConnections": {"main": {"mongoUri": uri}},
            "databases": {"runtime": {"tenantDatabases": [{"tenantId": "t", "dbConnRef": "main", "dbName": "d"}]}}
        });
        let _ = Config::parse(&document.to_string(), Path::new("/etc/app"));
    });
}

#[test]
fn filters() {
    let valid = json!({
        "a": {"$gt": 1, "$lt": {"$numberLong": "5"}}, "$or": [{"b": {"$in": [1, "x", null]}}, {"$not": {"c": 1}}],
        "d": {"$elemMatch": {"e": {"$regex": "^(a|b)*c{2,3}$", "$options": "i"}}}, "f.g": {"$size": 2}, "h": {"$exists": true}
    })
    .to_string();
    let document =
        doc! { "a": 3_i64, "b": "x", "d": [{ "e": "aabcc" }], "f": { "g": [1, 2] }, "h": Bson::Null };
    bounded("filters", inputs(1), |chance| {
        let Ok(parsed) = Json::parse(mutate::text(chance, &valid)) else { return };
        if let Ok(filter) = filter::parse(&parsed, &mut |path| Ok(path.to_owned())) {
            let _ = filter.matches(&document);
        }
    });
}

#[test]
fn documents_and_lines_of_imports() {
    let valid = json!({
        "op": "update", "key": "k-1", "at": "2024-02-29T12:00:00Z", "actor": "a", "reason": null,
        "data": {"n": 1.50, "big": 123456789012345678901234567890_f64, "d": {"$date": {"$numberLong": "1"}}, "u": "\u{10ffff}",
                 "b": {"$binary": {"base64": "AAAA", "subType": "04"}}, "deep": [[[[{"a": [1, -0.0, "x"]}]]]]}
    })
    .to_string();
    bounded("documents", inputs(1), |chance| {
        let Ok(parsed) = Json::parse(mutate::bytes(chance, valid.as_bytes())) else { return };
        let _ = ImportOp::parse(&parsed);
        let _ = json_to_bson(&parsed);
        // What was read is written, and read again as the same.
        let again = Json::parse(parsed.to_string());
        assert!(again.is_ok_and(|again| again == parsed), "it does not come back");
    });
}

#[test]
fn keys_times_and_positions() {
    let valid = [
        "things/6553f10040ed74d403000001/v1/item.6553f1003fe9c1a228000000.json",
        "__manifests__/things/2024/01/snapshot-90026295448659906455.json.gz",
        "2015-12-31T10:00:00.123+01:00",
        "earliest",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    bounded("keys", inputs(1), |chance| {
        let text = mutate::text(chance, chance.pick(&valid).copied().unwrap_or_default());
        let _ = keys::parse_item(&text);
        let _ = keys::parse_property(&text);
        let _ = keys::parse_manifest(&text);
        let _ = DeliverPolicy::parse(&text);
        if let Ok(at) = Timestamp::parse(&text) {
            let _ = at.to_string();
        }
        let headers = [("traceparent".to_owned(), text.clone()), ("tracestate".to_owned(), text)];
        let _ = chronow::TraceContext::extract(&headers.into_iter().collect());
    });
}
