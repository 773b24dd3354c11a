//! What rules come to, computed the simplest way.

use std::collections::BTreeMap;

use chronos_db::{Json, Random as _, Timestamp, json};
use test_support::SeededRandom;

/// After every change of [`Item::some`].
pub(super) const NOW: &str = "2024-06-15T12:00:00Z";
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// One that was created, perhaps changed, perhaps deleted.
pub(super) struct Item {
    key: String,
    created: Timestamp,
    first: Json,
    changed: Option<(Timestamp, Json)>,
    deleted: Option<Timestamp>,
}

/// A result: when its timeframe begins, its arguments, its value.
pub(super) type ModelResult = (String, String, Option<f64>);

impl Item {
    /// So many, of the 45 days before [`NOW`].
    pub(super) fn some(random: &SeededRandom, count: u64) -> Vec<Self> {
        let mut below = |most: i64| i64::try_from(random.next_u64() % most.unsigned_abs()).unwrap();
        let now = Timestamp::parse(NOW).unwrap();
        let data = |key: &str, below: &mut dyn FnMut(i64) -> i64| {
            let status = if below(3) == 0 { "open" } else { "done" };
            let mut data = json!({ "key": key, "status": status });
            match below(6) {
                0 => {}
                1 => data["n"] = Json::Null,
                2 => data["n"] = [Json::from(below(50)), Json::from(below(50) as f64 + 0.25)].into(),
                3 => data["n"] = (below(50) as f64 / 4.0 - 5.0).into(),
                _ => data["n"] = (below(100) - 50).into(),
            }
            match below(4) {
                0 => {}
                1 => data["group"] = below(3).into(),
                _ => data["group"] = if below(2) == 0 { "a" } else { "b" }.into(),
            }
            data["in"] = json!({});
            data["in"]["side"] = (below(2) == 0).into();
            data
        };
        let made = (0..count).map(|n| {
            let key = format!("k{n}");
            let created = now.plus_millis(-below(45 * DAY / MINUTE) * MINUTE - MINUTE);
            let first = data(&key, &mut below);
            let later = |below: &mut dyn FnMut(i64) -> i64, from: Timestamp| {
                let left = (now.as_millis() - from.as_millis()) / 2;
                from.plus_millis(1 + below(left.max(2)))
            };
            let changed = (below(3) == 0).then(|| (later(&mut below, created), data(&key, &mut below)));
            // A change that changes nothing is none.
            let changed = changed.filter(|(_, data)| *data != first);
            let last = changed.as_ref().map_or(created, |(at, _)| *at);
            let deleted = (below(8) == 0).then(|| later(&mut below, last));
            Self { key, created, first, changed, deleted }
        });
        made.collect()
    }

    /// Its log.
    pub(super) fn operations(&self) -> Vec<Json> {
        let operation = |op: &str, at: Timestamp, data: Json| json!({ "op": op, "key": &self.key, "at": at.to_string(), "data": data });
        let mut log = vec![operation("create", self.created, self.first.clone())];
        log.extend(self.changed.iter().map(|(at, data)| operation("replace", *at, data.clone())));
        log.extend(self.deleted.map(|at| operation("delete", at, Json::Null)));
        log
    }
}

fn days(rule: &Json, bound: &str) -> Option<i64> {
    let text = rule["relativeTime"][bound].as_str()?;
    Some(text.trim_matches(['P', 'D']).parse::<i64>().unwrap() * DAY)
}

fn start(timeframe: &Json, at: Timestamp) -> String {
    let text = at.to_string();
    match timeframe.as_str() {
        None => String::new(),
        Some("hourly") => format!("{}:00:00.000Z", &text[..13]),
        Some("daily") => format!("{}T00:00:00.000Z", &text[..10]),
        _ => format!("{}-01T00:00:00.000Z", &text[..7]),
    }
}

fn value(operation: &str, mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let (count, sum) = (numbers.len(), numbers.iter().sum::<f64>());
    match operation {
        "count" => Some(count as f64),
        "sum" => Some(sum),
        _ if count == 0 => None,
        "average" => Some(sum / count as f64),
        "max" => numbers.last().copied(),
        "min" => numbers.first().copied(),
        _ => Some((numbers[(count - 1) / 2] + numbers[count / 2]) / 2.0),
    }
}

/// What a rule over these items comes to at a moment, in order.
pub(super) fn naive(rule: &Json, items: &[Item], now: Timestamp) -> Vec<ModelResult> {
    let (newer, older) = (days(rule, "newerThan"), days(rule, "olderThan"));
    let until = now.plus_millis(-older.unwrap_or(0));
    let from = newer.map(|newer| now.plus_millis(-newer));
    let arguments: Vec<&str> =
        rule["arguments"].as_array().into_iter().flatten().map(|path| path.as_str().unwrap()).collect();
    let mut groups: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    if rule["timeframe"].is_null() && arguments.is_empty() {
        groups.insert((String::new(), "[]".to_owned()), Vec::new());
    }
    for item in items.iter().filter(|item| item.deleted.is_none()) {
        let (changed, data) = match &item.changed {
            Some((at, data)) => (*at, data),
            None => (item.created, &item.first),
        };
        if data["status"] != json!("done")
            || item.created > until
            || from.is_some_and(|from| item.created < from)
        {
            continue;
        }
        let begins = start(&rule["timeframe"], changed);
        // Of a timeframe before the last one, everything is seen or nothing is said.
        let is_cut = from.is_some_and(|from| !begins.is_empty() && Timestamp::parse(&begins).unwrap() < from);
        if is_cut && begins < start(&rule["timeframe"], until) {
            continue;
        }
        let numbers: Vec<f64> = match (&rule["field"], &data["n"]) {
            (Json::Null, _) => vec![1.0],
            (_, Json::Null) => continue,
            (_, Json::Array(several)) => several.iter().map(|n| n.as_f64().unwrap()).collect(),
            (_, one) => vec![one.as_f64().unwrap()],
        };
        let of = |path: &&str| match *path {
            "group" => data["group"].clone(),
            _ => data["in"]["side"].clone(),
        };
        let group: Json = arguments.iter().map(of).collect();
        groups.entry((begins, group.to_string())).or_default().extend(numbers);
    }
    let operation = rule["operation"].as_str().unwrap();
    groups.into_iter().map(|((begins, group), numbers)| (begins, group, value(operation, numbers))).collect()
}
