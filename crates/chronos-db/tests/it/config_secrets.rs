use std::error::Error as _;
use std::path::Path;

use chronos_db::config::Config;
use chronos_db::{Json, Router, json};

use crate::config::examples;

const MARK: &str = "h1dden";

/// Puts the mark into every secret of a configuration.
fn mark_secrets(value: &mut Json) {
    match value {
        Json::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), &mut *member) {
                    ("accessKey" | "secretKey", Json::String(text)) => *text = MARK.to_owned(),
                    _ => mark_secrets(member),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(mark_secrets),
        Json::String(text) => {
            for scheme in ["mongodb://", "mongodb+srv://"] {
                if let Some(rest) = text.strip_prefix(scheme) {
                    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                    *text = format!("{scheme}{MARK}:{MARK}@{host}");
                    break;
                }
            }
        }
        _ => {}
    }
}

/// The JSON pointers of all values.
fn pointers(value: &Json, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Json::Object(members) => members.iter().for_each(|(key, member)| {
            pointers(member, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found)
        }),
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found))
        }
        _ => {}
    }
}

fn assert_hidden(document: &Json, what: &str) -> bool {
    let outcome = Config::parse(&document.to_string(), Path::new("/etc/app"));
    let shown = match &outcome {
        Ok(config) => format!("{config:?} {} {:?}", config.describe(), Router::new(config)),
        Err(error) => {
            let path = error.message().split([':', '.', '[']).next().unwrap();
            let known = document.get(path).is_some()
                || ["$", "databases", "dbConnections", "mongoUris"].contains(&path);
            assert!(known, "{what}: `{}` doesn't start with a path", error.message());
            format!("{error} {error:?} {:?}", error.source())
        }
    };
    assert!(!shown.contains(MARK), "{what} shows a secret: {shown}");
    outcome.is_ok()
}

#[test]
fn no_secret_shows_in_errors_warnings_debug_and_descriptions_whatever_is_wrong() {
    let wrong = [json!(null), json!(-1), json!("?"), json!(""), json!([1]), json!({"x": {"y": 1}})];
    for (name, path) in examples() {
        let mut document: Json = Json::parse(std::fs::read_to_string(path).unwrap()).unwrap();
        document["chronow"] = json!({"redis": {"url": format!("redis://:{MARK}@localhost")}});
        mark_secrets(&mut document);
        assert!(assert_hidden(&document, &name), "{name} is not read with its secrets marked");
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        for place in places.iter().filter(|place| !place.starts_with("/analytics/")) {
            for value in &wrong {
                let mut spoiled = document.clone();
                *spoiled.pointer_mut(place).unwrap() = value.clone();
                assert_hidden(&spoiled, &format!("{name} with {value} at {place}"));
            }
        }
    }
}

#[test]
fn secrets_in_the_wrong_place_of_an_address_do_not_show() {
    let places = [
        json!({"dbConnections": {"m": {"mongoUri": format!("mongodb://user:{MARK}/{MARK}@host")}}}),
        json!({"dbConnections": {"m": {"mongoUri": format!("mongodb://user:1?{MARK}@host")}}}),
        json!({"dbConnections": {"m": {"mongoUri": format!("postgres://user:{MARK}@host")}}}),
        json!({"dbConnections": {"m": {"mongoUri": {"url": MARK}}}}),
        json!({"dbConnections": {"m": {"mongoUri": "mongodb://h"}}, "spacesConnections": {"s": {"endpoint": format!("https://{MARK}:{MARK}@host"), "accessKey": "a", "secretKey": "s"}}}),
        json!({"dbConnections": {"m": {"mongoUri": "mongodb://h"}}, "spacesConnections": {"s": {"endpoint": format!("https://host?sig={MARK}"), "accessKey": "a", "secretKey": "s"}}}),
        json!({"mongoUris": format!("mongodb://u:{MARK}@h")}),
        json!({"mongoUris": ["mongodb://h"], "counters": {"mongoUri": format!("mongo://u:{MARK}@h"), "dbName": "c"}}),
    ];
    for document in places {
        assert!(!assert_hidden(&document, "a misplaced secret"));
    }
}
