//! What a history means for counters: kept in memory beside it, and compared with what the library says.

use std::collections::BTreeMap;

use chronos_db::{Collection, ItemId, Json, Random, json};

#[derive(Debug)]
struct Item {
    id: ItemId,
    live: bool,
    versions: Vec<Json>,
    /// Versions that deleted it: none can be restored.
    deletions: Vec<usize>,
}

/// How often created, updated and deleted.
type Counts = [u64; 3];

#[derive(Debug, Default)]
pub(super) struct Model {
    items: Vec<Item>,
    total: Counts,
    rules: BTreeMap<&'static str, Counts>,
    unique: BTreeMap<(&'static str, String), Counts>,
}

fn is_open(document: &Json) -> bool {
    document["s"] == json!("open")
}

fn depth(document: &Json) -> i64 {
    document["deep"]["x"].as_i64().unwrap()
}

impl Model {
    fn count(&mut self, op: usize, judged: &Json) {
        self.total[op] += 1;
        let mut matched = Vec::new();
        if is_open(judged) {
            matched.extend([("open", Some("n")), ("openNow", None)]);
        }
        if depth(judged) >= 5 {
            matched.push(("bigNow", None));
            if op == 0 {
                matched.push(("born.big", None));
            }
        } else if op == 2 {
            matched.push(("gone", Some("s")));
        }
        for (rule, property) in matched {
            self.rules.entry(rule).or_default()[op] += 1;
            if let Some(property) = property {
                self.unique.entry((rule, judged[property].to_string())).or_default()[op] += 1;
            }
        }
    }

    /// One random change, by the library and in here.
    pub(super) async fn change(&mut self, collection: &Collection, random: &impl Random) {
        let pick = |n: usize| (random.next_u64() % n as u64) as usize;
        let document = json!({
            "s": if pick(3) == 0 { "shut" } else { "open" }, "n": pick(4) as i64, "deep": {"x": pick(10) as i64},
        });
        if self.items.is_empty() || pick(3) == 0 {
            let id = collection.create(document.clone()).await.unwrap().id;
            self.items.push(Item { id, live: true, versions: vec![document.clone()], deletions: Vec::new() });
            return self.count(0, &document);
        }
        let at = pick(self.items.len());
        let item = &mut self.items[at];
        let last = item.versions.last().unwrap().clone();
        match (item.live, pick(3)) {
            (true, 0) => {
                collection.delete(&item.id).await.unwrap();
                item.live = false;
                item.deletions.push(item.versions.len());
                item.versions.push(last.clone());
                self.count(2, &last);
            }
            (true, 1) => {
                collection.replace(&item.id, document.clone()).force().await.unwrap();
                item.versions.push(document.clone());
                self.count(1, &document);
            }
            _ => {
                let kept: Vec<usize> =
                    (0..item.versions.len()).filter(|ov| !item.deletions.contains(ov)).collect();
                let ov = kept[pick(kept.len())];
                let earlier = item.versions[ov].clone();
                collection.restore(&item.id).to_version(ov as i64).force().await.unwrap();
                item.live = true;
                item.versions.push(earlier.clone());
                self.count(1, &earlier);
            }
        }
    }

    fn now(&self, matches: impl Fn(&Json) -> bool) -> u64 {
        let live = self.items.iter().filter(|item| item.live);
        live.filter(|item| matches(item.versions.last().unwrap())).count() as u64
    }

    /// What the library says is what this model says.
    pub(super) async fn check(&self, collection: &Collection, when: &str) {
        let reported = collection.counters().totals().await.unwrap();
        let three = |counts: chronos_db::counters::Counts| [counts.created, counts.updated, counts.deleted];
        assert_eq!(three(reported.counts), self.total, "{when}: {:#}", reported.to_json());
        for (name, rule) in &reported.rules {
            let mine = self.rules.get(name.as_str()).copied().unwrap_or_default();
            assert_eq!(three(rule.counts), mine, "{when}: rule {name}");
        }
        assert_eq!(reported.rules["openNow"].gauge, Some(self.now(is_open)), "{when}");
        assert_eq!(reported.rules["bigNow"].gauge, Some(self.now(|document| depth(document) >= 5)), "{when}");
        for (rule, property) in [("open", "n"), ("gone", "s")] {
            let values = collection.counters().unique(rule, property).await.unwrap();
            let seen: BTreeMap<(&str, String), Counts> =
                values.iter().map(|value| ((rule, value.value.to_string()), three(value.counts))).collect();
            let mine: BTreeMap<(&str, String), Counts> = self
                .unique
                .iter()
                .filter(|((of, _), _)| *of == rule)
                .map(|(key, counts)| (key.clone(), *counts))
                .collect();
            assert_eq!(seen, mine, "{when}: {rule} by {property}");
            assert_eq!(
                reported.rules[rule].unique[property],
                mine.len() as u64,
                "{when}: {rule} by {property}"
            );
        }
    }
}
