//! Values of JSON: that they are what was written, and go everywhere.

use std::collections::{BTreeMap, HashMap};

use chronos_db::json::{Map, Number, from_slice, to_json, to_string};
use chronos_db::{Json, json};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

fn parsed(text: &str) -> Json {
    Json::parse(text).unwrap()
}

fn refusal(text: impl AsRef<[u8]>) -> String {
    Json::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_as_it_was() {
    for text in [
        "null",
        "true",
        "-0",
        "-0.0",
        "1.50",
        "1E+2",
        "1e-400",
        "123456789012345678901234567890.123456789",
        "18446744073709551616",
        r#""a\"\\\b\f\n\r\té😀""#,
        "\"\\u0000\\u001f\u{7f}\"",
        "[]",
        "{}",
        r#"{"z":1,"a":[{"y":null,"b":{}}],"m":""}"#,
        r#"{"$serde_json::private::Number":"12","$serde_json::private::RawValue":"[1]"}"#,
        r#"{"":{"$numberLong":"7"}}"#,
    ] {
        assert_eq!(parsed(text).to_string(), text);
    }
    let spaced = " {\n \"a\" : [ 1 ,\t2 ] , \"b\":\"\\u00e9\\/\\ud83d\\ude00\" }\r\n";
    assert_eq!(parsed(spaced).to_string(), r#"{"a":[1,2],"b":"é/😀"}"#);
    assert_eq!(
        format!("{:#}", json!({"a": [1, {}], "b": []})),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
    );
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let cases = [
        ("", "unexpected end at line 1 column 1"),
        ("{\"a\": 1", "unexpected end at line 1 column 8"),
        ("[1,\n 2,]", "expected a value at line 2 column 4"),
        ("{a: 1}", "expected a key in double quotes at line 1 column 2"),
        ("[1 2]", "expected `,` or `]` at line 1 column 4"),
        ("1 1", "unexpected text after the value at line 1 column 3"),
        ("tru", "expected a value at line 1 column 1"),
        ("NaN", "expected a value at line 1 column 1"),
        ("\"a\nb\"", "a control character in a text must be escaped at line 1 column 3"),
        ("\"\\x\"", "invalid escape at line 1 column 3"),
        ("\"\\u12g4\"", "four hexadecimal digits are expected after `\\u` at line 1 column 4"),
        (r#"["\ud800x"]"#, r"\ud800 is half of a character: a lone surrogate at line 1 column 3"),
        (r#""\ud800\u0041""#, r"\ud800 is half of a character: a lone surrogate at line 1 column 2"),
        (r#""\udc00""#, r"\udc00 is half of a character: a lone surrogate at line 1 column 2"),
        (r#"{"a":{"b":1,"c":2,"b":3}}"#, r#"the key "b" stands twice in one object at line 1 column 19"#),
        ("{\"a\":1,\"\\u0061\":2}", r#"the key "a" stands twice in one object at line 1 column 8"#),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
    for number in ["01", "1.", ".5", "+1", "1e", "1e+", "-", "0x10", "1_000", "1.e5", "--1", "Infinity"] {
        assert!(Json::parse(number).is_err(), "{number}");
        assert!(Number::parse(number).is_none(), "{number}");
    }
    assert_eq!(refusal(b"[\"\xff\"]"), "invalid UTF-8 at line 1 column 3");
}

#[test]
fn nesting_has_a_bound_and_not_the_stack() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert_eq!(parsed(&nested(128)).to_string(), nested(128));
    assert!(refusal(nested(129)).starts_with("nested deeper than 128 levels"));
    assert!(refusal("[".repeat(10_000_000)).starts_with("nested deeper"));
    assert!(refusal("{\"a\":".repeat(1_000_000)).starts_with("nested deeper"));
}

#[test]
fn equal_numbers_are_equal_however_they_are_written() {
    let same = [
        ["1", "1.0"],
        ["1", "1e0"],
        ["100", "1E+2"],
        ["1.5", "15e-1"],
        ["0.1", "0.10"],
        ["-0", "0"],
        ["0e99999999999999999999999999999999999999999", "0"],
        ["1e1000000000000", "10e999999999999"],
        ["9223372036854775808", "9223372036854775808.000"],
        ["123456789012345678901234567890", "1.2345678901234567890123456789e29"],
    ];
    for [a, b] in same {
        assert_eq!(parsed(a), parsed(b));
        assert_eq!(json!({"a": [parsed(a)], "b": 1}), json!({"b": 1.0, "a": [parsed(b)]}));
    }
    let other = [
        ["1", "-1"],
        ["1", "1.0000000000000000000000001"],
        ["9007199254740992", "9007199254740993"],
        ["0.1", "0.1000000000000000055511151231257827"],
        ["1e999999999999999999999999999999999999999999", "1e999999999999999999999999999999999999999998"],
        ["1e400", "1e401"],
        ["1", "\"1\""],
    ];
    for [a, b] in other {
        assert_ne!(parsed(a), parsed(b));
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    F(f64),
    S(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    A { x: f64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Plain {
    Unit,
    New(f32),
    Tuple(u8, i128),
    Struct { a: Option<char> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    y: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    untagged: Vec<Untagged>,
    tagged: Tagged,
    plain: Vec<Plain>,
    #[serde(flatten)]
    inner: Inner,
    big: u64,
    map: BTreeMap<i32, bool>,
    none: Option<()>,
    any: Json,
    object: Map,
    number: Number,
}

fn everything() -> Everything {
    Everything {
        untagged: vec![Untagged::F(5.5), Untagged::S("s".to_owned())],
        tagged: Tagged::A { x: 1.0 },
        plain: vec![Plain::Unit, Plain::New(0.1), Plain::Tuple(1, -2), Plain::Struct { a: Some('c') }],
        inner: Inner { y: 1.5 },
        big: u64::MAX,
        map: BTreeMap::from([(-1, true)]),
        none: None,
        any: parsed(r#"[1.50, {"b": 18446744073709551616, "a": null}]"#),
        object: Map::from_iter([("z", parsed("-0"))]),
        number: Number::parse("1e400").unwrap(),
    }
}

#[test]
fn types_of_users_go_in_and_out_and_values_inside_keep_their_digits() {
    let text = to_string(&everything()).unwrap();
    for kept in ["1.50", "18446744073709551616", r#""b":"#, "-0", "1e400", r#""y":1.5"#] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let json = to_json(&everything()).unwrap();
    assert_eq!(json.to_string(), text);
    assert_eq!(json.to::<Everything>().unwrap(), everything());
    let read: Everything = from_slice(text.as_bytes()).unwrap();
    assert_eq!(read, everything());
    assert_eq!(to_string(&read).unwrap(), text);
    // What `serde_json` writes of it alone is the nearest that other formats have.
    let foreign = serde_json::to_string(&everything()).unwrap();
    assert!(foreign.contains("[1.5,{\"b\":1.8446744073709552e"), "{foreign}");
    assert_eq!(to_json(&HashMap::from([((1, 2), 3)])).unwrap_err().to_string(), "key must be a string");
}

#[test]
fn values_of_serde_json_convert_and_compare() {
    let theirs = serde_json::json!({"b": [1, 2.5, null, true, "x"], "a": {"n": u64::MAX}});
    let ours = Json::from(theirs.clone());
    assert_eq!(ours, theirs);
    assert_eq!(theirs, ours);
    assert_eq!(serde_json::Value::from(ours), theirs);
    assert_eq!(
        serde_json::Value::from(parsed("[18446744073709551616, 1e999]")),
        serde_json::json!([18_446_744_073_709_551_616.0, f64::MAX])
    );
    assert!(parsed(r#"{"a": 1}"#) != serde_json::json!({"a": 2}));
}

#[test]
fn values_are_looked_into_and_changed() {
    let mut value = json!({"a": [1, {"b": "x"}], "n": 1.5});
    assert!(
        value["a"][1]["b"] == "x" && value["a"][0] == 1 && value["n"] == 1.5 && value["no"]["such"].is_null()
    );
    assert_eq!(value.pointer("/a/1/b").and_then(Json::as_str), Some("x"));
    value["new"]["deep"] = 7.into();
    value["a"][0] = Json::Null;
    assert_eq!(value.to_string(), r#"{"a":[null,{"b":"x"}],"n":1.5,"new":{"deep":7}}"#);
    let map = value.as_object_mut().unwrap();
    map.remove("a");
    map.insert("n".to_owned(), json!([]));
    assert_eq!(value.to_string(), r#"{"n":[],"new":{"deep":7}}"#);
}

proptest! {
    #[test]
    fn texts_come_back_and_agree_with_serde_json(text in any::<String>(), float in any::<f64>(), whole in any::<i64>()) {
        let value = json!({"t": text, "f": float, "w": whole, text.clone(): [text]});
        let theirs = serde_json::json!({"t": text, "f": float, "w": whole, text.clone(): [text]});
        let written = value.to_string();
        prop_assert!(value == theirs);
        prop_assert_eq!(Json::parse(serde_json::to_string(&theirs).unwrap()).unwrap(), value.clone());
        prop_assert_eq!(Json::parse(&written).unwrap().to_string(), written);
    }

    #[test]
    fn what_one_parser_takes_the_other_takes_too(text in r#"[\[\]{}",:0-9eE.+\-truefalsnu\\ ]{0,12}"#) {
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match Json::parse(&text) {
            Ok(ours) => match theirs {
                // Of doubles it reads the last digit wrong at times.
                Ok(theirs) => prop_assert!(text.contains(['.', 'e', 'E']) || ours == theirs),
                Err(error) => prop_assert!(error.to_string().contains("out of range"), "{text}: {error}"),
            },
            Err(error) => prop_assert!(theirs.is_err() || error.to_string().contains("twice"), "{text}: {error}"),
        }
    }
}
