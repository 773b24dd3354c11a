//! What a run costs: each item is read once, and what an index counts is not read at all.

use std::sync::Arc;

use chronos_db::{Json, json};
use test_support::{Meter, documents};

use super::{acme, rules};
use crate::records::pairing::{Pairing, TIMEOUT, on_every_pairing};

on_every_pairing!(a_run_reads_each_item_once_and_a_plain_count_none);

/// At two sizes a hundred apart.
async fn a_run_reads_each_item_once_and_a_plain_count_none(p: &Pairing) {
    let of = |collection: &str| {
        json!([
            { "name": format!("{collection}_count"), "collection": collection, "query": { "done": true }, "operation": "count" },
            { "name": format!("{collection}_median"), "collection": collection, "operation": "median", "field": "n" },
            { "name": format!("{collection}_by"), "collection": collection, "operation": "sum", "field": "n", "timeframe": "daily", "arguments": ["who"] },
        ])
    };
    let all =
        of("few").as_array().unwrap().iter().chain(of("many").as_array().unwrap()).cloned().collect::<Json>();
    let meter = Arc::<Meter>::default();
    let client = documents::metered(p.observed().0, Arc::clone(&meter));
    let store = p.opening().with(&rules(all)).documents_client(client).open();
    let mut spent = Vec::new();
    for (name, items) in [("few", 10), ("many", 1_000)] {
        let sales = store.collection(name);
        let made =
            (0..items).map(|n| sales.create(json!({ "n": n, "done": true, "who": n % 3 })).into_future());
        futures::future::try_join_all(made).await.unwrap();
        assert_eq!(sales.flush(TIMEOUT).await.unwrap(), 0);
        for rule in ["count", "median", "by"] {
            let rule = format!("{name}_{rule}");
            // The first run makes the indexes of the results.
            for round in 0..2 {
                meter.take();
                let ran = store.chronos.analytics().run().rules([&rule]).only(acme()).await.unwrap();
                assert!(ran.rules.len() == 1 && ran.rules[0].error.is_none(), "{ran:?}");
                let moved = meter.take();
                if round == 1 {
                    spent.push((rule.clone(), items, moved.calls, moved.read, moved.written));
                }
            }
        }
    }
    for (rule, items, calls, read, written) in &spent {
        let most = if rule.ends_with("count") { 0 } else { *items };
        assert!(
            *read <= most + 20 && *written <= 20 && *calls <= 20 + most / 50,
            "{rule}: {calls} calls: {spent:?}"
        );
    }
}
