//! Random documents and filters from few names and values, so that they often meet. Also used by the unit
//! tests of the filter language.

// Private in the one program, where the other sees it from afar.
#![allow(unreachable_pub)]

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

pub(crate) const PATHS: [&str; 14] =
    ["a", "b", "c", "a.b", "a.c", "b.a", "a.b.c", "a.0", "a.1", "a.0.b", "a.b.0", "a.0.0", "b.0.a.c", "a.a"];

fn id(last: u8) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[11] = last;
    ObjectId::from_bytes(bytes)
}

pub(crate) fn scalar() -> impl Strategy<Value = Bson> {
    let binary =
        |bytes: Vec<u8>| Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes });
    // No pattern below: a server finds a stored expression also by an equal one, which no JSON can store.
    let regex = Bson::RegularExpression(bson::Regex {
        pattern: bson::cstr!("z$").into(),
        options: bson::cstr!("").into(),
    });
    prop_oneof![
        2 => Just(Bson::Null),
        6 => select(vec![-1, 0, 1, 2, 3]).prop_map(Bson::Int32),
        3 => select(vec![1, 2, (1_i64 << 53) + 1, 1 << 53, i64::MAX, i64::MIN]).prop_map(Bson::Int64),
        4 => select(vec![0.5, 1.0, -0.0, 2.0, 9_007_199_254_740_992.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 9.3e18]).prop_map(Bson::Double),
        5 => select(vec!["", "a", "ab", "b", "A", "a\n", "x a-b", "ä1", "a\u{0}", "ſ"]).prop_map(|s| Bson::String(s.into())),
        2 => any::<bool>().prop_map(Bson::Boolean),
        2 => select(vec![-1, 0, 1000]).prop_map(|ms| Bson::DateTime(DateTime::from_millis(ms))),
        2 => select(vec![1, 2]).prop_map(|last| Bson::ObjectId(id(last))),
        1 => select(vec![vec![], vec![1], vec![1, 2], vec![2]]).prop_map(binary),
        1 => Just(Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 })),
        1 => Just(regex),
    ]
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(vec!["a", "b", "c"]), 1 => select(vec!["0", "1"])].prop_map(str::to_owned)
}

fn object(value: impl Strategy<Value = Bson>) -> impl Strategy<Value = Document> {
    vec((name(), value), 0..4).prop_map(|fields| fields.into_iter().collect())
}

pub(crate) fn value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            1 => scalar(),
            2 => object(inner.clone()).prop_map(Bson::Document),
            2 => vec(inner, 0..4).prop_map(Bson::Array),
        ]
    })
}

pub(crate) fn document() -> impl Strategy<Value = Document> {
    object(value())
}

/// A value without arrays.
pub(crate) fn plain_value() -> impl Strategy<Value = Bson> {
    scalar().prop_recursive(3, 12, 3, |inner| prop_oneof![scalar(), object(inner).prop_map(Bson::Document)])
}

/// A document without arrays.
pub(crate) fn plain_document() -> impl Strategy<Value = Document> {
    object(plain_value())
}

fn literal() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        2 => Just(Value::Null),
        6 => select(vec![json!(0), json!(1), json!(2), json!(1.0), json!(0.5), json!(-1), json!(9_007_199_254_740_993_i64), json!(9e15), json!(1e300)]),
        5 => select(vec!["", "a", "ab", "b", "x a-b"]).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => select(vec!["1970-01-01", "1970-01-01T00:00:01Z"]).prop_map(|at| json!({ "$date": at })),
        1 => select(vec![1, 2]).prop_map(|last| json!({ "$oid": id(last).to_hex() })),
    ];
    scalar.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            4 => inner.clone(),
            1 => vec(inner.clone(), 0..3).prop_map(Value::from),
            1 => vec((name(), inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn regex() -> impl Strategy<Value = (Value, Option<Value>)> {
    let sources = vec![
        "a",
        "^a",
        "b$",
        "^ab?",
        r"\d",
        ".",
        "^.$",
        "[^a]",
        "(?i)A",
        "^(a|b)$",
        r"\bb",
        r"\s",
        "^$",
        "",
        "^a-",
        r"\W",
        "[[:alpha:]]",
        "ä",
        r"\.",
        "^x a-",
        "a*?b",
        "(a|b){2}",
        "(?:)",
        "[^\\s\\S]",
        r"\p{Lu}",
        "s",
        "k|s",
        "^b|^a",
    ];
    let options =
        prop_oneof![3 => Just(None), 1 => select(vec!["i", "m", "s", "im", "ims", ""]).prop_map(Some)];
    (select(sources), options).prop_map(|(source, options)| (source.into(), options.map(Value::from)))
}

fn operators(depth: u32) -> BoxedStrategy<Value> {
    let one = |name: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |v| vec![(name.to_owned(), v)]).boxed()
    };
    let list = || vec(literal(), 0..4).prop_map(Value::from).boxed();
    let compared = select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
    let mut choices = vec![
        (8, (compared, literal()).prop_map(|(name, v)| vec![(name.to_owned(), v)]).boxed()),
        (2, one("$in", list())),
        (2, one("$nin", list())),
        (1, one("$all", list())),
        (2, one("$exists", any::<bool>().prop_map(Value::from).boxed())),
        (1, one("$size", (0..3).prop_map(Value::from).boxed())),
        (
            2,
            regex()
                .prop_map(|(source, options)| {
                    let mut out = vec![("$regex".to_owned(), source)];
                    out.extend(options.map(|options| ("$options".to_owned(), options)));
                    out
                })
                .boxed(),
        ),
    ];
    if depth > 0 {
        choices.push((2, one("$not", operators(depth - 1))));
        choices.push((2, one("$elemMatch", operators(depth - 1))));
        choices.push((2, one("$elemMatch", filter_of(vec!["a", "b", "0", "a.b", "b.0", "c"], depth - 1))));
    }
    vec(proptest::strategy::Union::new_weighted(choices), 1..3)
        .prop_map(|groups| Value::Object(groups.into_iter().flatten().collect::<Map<_, _>>()))
        .prop_filter("options need their pattern", |v| {
            v.get("$options").is_none() || v.get("$regex").is_some()
        })
        .boxed()
}

fn filter_of(paths: Vec<&'static str>, depth: u32) -> BoxedStrategy<Value> {
    let field = (select(paths.clone()), prop_oneof![1 => literal(), 3 => operators(depth)])
        .prop_map(|(path, v)| (path.to_owned(), v));
    if depth == 0 {
        return vec(field, 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())).boxed();
    }
    let logic = (select(vec!["$and", "$or", "$nor"]), vec(filter_of(paths, depth - 1), 1..4))
        .prop_map(|(name, v)| (name.to_owned(), v.into()));
    vec(prop_oneof![3 => field, 1 => logic], 1..3)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
        .boxed()
}

/// A filter over [`PATHS`].
pub(crate) fn filter() -> BoxedStrategy<Value> {
    filter_of(PATHS.to_vec(), 2)
}

/// The document with its `_id`.
pub(crate) fn numbered(documents: Vec<Document>) -> Vec<Document> {
    let number = |(i, document): (usize, Document)| {
        let mut out = doc! { "_id": i32::try_from(i).unwrap() };
        out.extend(document);
        out
    };
    documents.into_iter().enumerate().map(number).collect()
}
