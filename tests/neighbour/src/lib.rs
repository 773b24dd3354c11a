//! What code of others does beside this library must be what it does without it.

#![cfg(test)]

use std::collections::BTreeSet;
use std::process::Command;

use chronos_db::config::Config;
use chronos_db::{Chronos, Route};
use serde::{Deserialize, Serialize};
use serde_json::{Value, from_str, json, to_string};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(f64),
    Text(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Circle { radius: f64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    y: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    x: f64,
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    untagged: Vec<Untagged>,
    tagged: Tagged,
    flattened: Flattened,
    value: Value,
}

fn everything() -> Everything {
    Everything {
        untagged: vec![Untagged::Number(5.5), Untagged::Text("s".to_owned())],
        tagged: Tagged::Circle { radius: 2.5 },
        flattened: Flattened { x: 1.0, inner: Inner { y: 0.5 } },
        value: json!({"z": 1.5, "a": [2]}),
    }
}

#[test]
fn untagged_tagged_and_flattened_types_read_their_doubles() {
    assert_eq!(from_str::<Untagged>("5.5").unwrap(), Untagged::Number(5.5));
    assert_eq!(from_str::<Tagged>(r#"{"kind":"Circle","radius":5.5}"#).unwrap(), Tagged::Circle { radius: 5.5 });
    assert_eq!(from_str::<Flattened>(r#"{"x":1,"y":5.5}"#).unwrap(), Flattened { x: 1.0, inner: Inner { y: 5.5 } });
    assert_eq!(serde_json::from_value::<Everything>(serde_json::to_value(everything()).unwrap()).unwrap(), everything());
}

#[test]
fn values_of_serde_json_sort_their_keys_round_their_numbers_and_know_no_magic_names() {
    assert_eq!(to_string(&from_str::<Value>(r#"{"z":1.50,"a":2}"#).unwrap()).unwrap(), r#"{"a":2,"z":1.5}"#);
    let odd = r#"{"$serde_json::private::Number":"12"}"#;
    assert_eq!(from_str::<Value>(odd).unwrap(), json!({"$serde_json::private::Number": "12"}));
}

#[tokio::test]
async fn such_types_are_documents() {
    let chronos = Chronos::open(Config::embedded(&std::env::temp_dir().join(format!("neighbour-{}", std::process::id())))).unwrap();
    let things = chronos.with(Route::runtime().tenant("default").collection("things")).unwrap();
    let made = things.create(&everything()).await.unwrap();
    let read = things.get(&made.id).await.unwrap().unwrap();
    assert_eq!(read.document_as::<Everything>().unwrap(), everything());
    let typed = things.typed::<Everything>();
    let other = typed.create(&everything()).await.unwrap();
    assert_eq!(typed.get(&other.id).await.unwrap().unwrap().document, everything());
    assert_eq!(things.list().filter(json!({"tagged.radius": {"$gt": 2}})).await.unwrap().items.len(), 2);
    chronos.shutdown().await.unwrap();
    std::fs::remove_dir_all(std::env::temp_dir().join(format!("neighbour-{}", std::process::id()))).unwrap();
}

/// What `cargo tree` says of our own workspace.
fn tree(args: &[&str]) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let done = Command::new(cargo).args(["tree", "--offline", "--locked", "--manifest-path", root]).args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn nothing_of_ours_turns_on_features_of_serde_json_that_change_what_others_get() {
    let features = tree(&["--workspace", "--all-features", "-e", "features", "-i", "serde_json"]);
    for harmful in ["arbitrary_precision", "preserve_order", "float_roundtrip", "raw_value", "unbounded_depth"] {
        assert!(!features.contains(&format!("serde_json feature \"{harmful}\"")), "{harmful}:\n{features}");
    }
}

#[test]
fn an_embedded_program_builds_few_crates_and_no_network_among_them() {
    let listed = tree(&["-p", "chronos-db", "--no-default-features", "--features", "embedded", "-e", "normal,build", "--prefix", "none"]);
    let crates: BTreeSet<&str> = listed.lines().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    let of_network = ["rustls", "ring", "openssl", "native-tls", "reqwest", "hyper", "mongodb", "redis", "h2"];
    let found: Vec<_> = crates.iter().filter(|name| of_network.contains(&name.split(' ').next().unwrap_or(name))).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(crates.len() <= MOST, "{} crates; docs/performance.md says {MOST}: {crates:?}", crates.len());
}

/// As docs/performance.md says.
const MOST: usize = 155;
