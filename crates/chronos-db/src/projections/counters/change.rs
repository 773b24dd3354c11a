//! What some rows of the log change of counters: computed from the rows alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::oid::ObjectId;
use bson::{Bson, Document};

use super::counts::{Counts, counted};
use super::period::Period;
use super::record::{Owner, Record, RuleRecord};
use super::row::{Event, Happening, RowChange, RowKey, Table};
use crate::Timestamp;
use crate::config::{CountedOp, CounterRetention, RuleScope};
use crate::projections::log::LogEntry;
use crate::records::{ItemId, Op};

/// Which periods are counted, and from when on.
#[derive(Clone, Debug, Default)]
pub(super) struct Periods(Vec<(Period, Timestamp)>);

impl Periods {
    pub(super) fn kept(keep: &CounterRetention, now: Timestamp) -> Self {
        let kept = |period: Period| Some((period, period.cutoff(now, period.kept(keep)?)));
        Self(Period::ALL.into_iter().filter_map(kept).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Period, Timestamp)> {
        self.0.iter().copied()
    }
}

/// The change, against totals whose rules it goes by.
pub(super) struct Change<'r> {
    owner: &'r Owner,
    record: &'r Record,
    periods: &'r Periods,
    pub(super) counts: Counts,
    /// One for each rule of the totals.
    pub(super) rules: Vec<Counts>,
    /// Counts of values and periods by their `_id`.
    pub(super) rows: BTreeMap<(Table, String), RowChange>,
    pub(super) last_at: Option<Timestamp>,
    /// The erasures among the rows.
    pub(super) erasures: Vec<Event>,
    /// Items of whose versions only the numbers are left, and the last number of each among the rows.
    pub(super) left_of: HashMap<ItemId, i64>,
    /// The counts of values that an item is in, of those above.
    of_items: HashMap<ItemId, BTreeSet<(Table, String)>>,
}

impl<'r> Change<'r> {
    pub(super) fn new(owner: &'r Owner, record: &'r Record, periods: &'r Periods) -> Self {
        Self {
            owner,
            record,
            periods,
            counts: Counts::default(),
            rules: vec![Counts::default(); record.rules.len()],
            rows: BTreeMap::new(),
            last_at: None,
            erasures: Vec::new(),
            left_of: HashMap::new(),
            of_items: HashMap::new(),
        }
    }

    /// Takes in a row. Each comes once, in the order of the log.
    pub(super) fn take(&mut self, entry: &LogEntry) {
        let row = &entry.row;
        if row.op == Op::Erase {
            self.erase(Event { cv: row.cv, what: Happening::Erases, at: row.at, item: row.id });
        }
        if row.op == Op::Erased {
            self.left_of.insert(row.id, row.cv);
        }
        let Some(op) = counted(row.op, row.ov, row.counts) else { return };
        let event = Event { cv: row.cv, what: Happening::Counts(op), at: row.at, item: row.id };
        self.counts.add(op);
        self.last_at = self.last_at.max(Some(row.at));
        let starts: Vec<(Period, Timestamp)> = self
            .periods
            .iter()
            .filter_map(|(period, oldest)| {
                Some((period, period.start(row.at).filter(|from| *from >= oldest)?))
            })
            .collect();
        for (period, from) in &starts {
            self.touch(RowKey::Bucket { period: *period, from: *from, rule: None }, event);
        }
        let record = self.record;
        for (rule, known) in record.rules.iter().enumerate() {
            if !matches(known, entry, op) {
                continue;
            }
            self.rules[rule].add(op);
            for (period, from) in &starts {
                self.touch(RowKey::Bucket { period: *period, from: *from, rule: Some(rule) }, event);
            }
            for property in &known.rule.unique {
                for value in values_at(&entry.indexed, property) {
                    let (property, value) = (property.clone(), value.clone());
                    self.touch(RowKey::Unique { rule, property, value }, event);
                }
            }
        }
    }

    fn touch(&mut self, key: RowKey, event: Event) {
        let id = key.id(self.owner, self.record.generation, &self.record.rules);
        let place = (key.table(), id);
        if place.0 == Table::Unique {
            self.of_items.entry(event.item).or_default().insert(place.clone());
        }
        // An array may hold a value twice.
        self.rows.entry(place).or_insert_with(|| RowChange { key, events: Vec::new() }).add(event);
    }

    /// Values that only the item had are no longer counted. Those that were counted before these rows are
    /// found by [`CounterStore::rows`](super::store::CounterStore::rows).
    fn erase(&mut self, erasure: Event) {
        for place in self.of_items.remove(&erasure.item).unwrap_or_default() {
            if let Some(row) = self.rows.get_mut(&place) {
                row.add(erasure);
            }
        }
        self.erasures.push(erasure);
    }

    /// Takes in that a stored count of a value is one of an item that is erased.
    pub(super) fn erase_stored(&mut self, id: &str, document: &Document, erasure: Event) {
        if let Some(row) = self.stored(id, document) {
            row.add(erasure);
        }
    }

    /// Takes in that a stored count may have versions of these rows whose values they no longer say.
    pub(super) fn take_stored(&mut self, id: &str, document: &Document) {
        self.stored(id, document);
    }

    fn stored(&mut self, id: &str, document: &Document) -> Option<&mut RowChange> {
        let place = (Table::Unique, id.to_owned());
        if !self.rows.contains_key(&place) {
            let key = RowKey::of_value(document, &self.record.rules)?;
            self.rows.insert(place.clone(), RowChange { key, events: Vec::new() });
        }
        self.rows.get_mut(&place)
    }

    pub(super) fn generation(&self) -> ObjectId {
        self.record.generation
    }

    /// The number behind which its rows are.
    pub(super) const fn after(&self) -> i64 {
        self.record.cv
    }

    /// The `_id`s of the counts that it changes in one collection.
    pub(super) fn ids(&self, table: Table) -> Vec<String> {
        self.rows.keys().filter(|(of, _)| *of == table).map(|(_, id)| id.clone()).collect()
    }
}

/// Whether a rule counts the version. What a deletion takes away is what it is judged by: that is in its row.
pub(super) fn matches(known: &RuleRecord, entry: &LogEntry, op: CountedOp) -> bool {
    let row = &entry.row;
    if row.cv <= known.since || !known.rule.is_on(op) {
        return false;
    }
    if row.op.is_bare() || known.rule.scope == RuleScope::Payload {
        row.meta.rules.contains(&known.rule.name)
    } else {
        known.rule.when.matches(&entry.indexed)
    }
}

/// The values at a dotted path: those of an array each for itself, null and absent ones left out.
fn values_at<'d>(document: &'d Document, path: &str) -> Vec<&'d Bson> {
    let mut found = Vec::new();
    collect(document, &path.replace("[]", ""), &mut found);
    found
}

fn collect<'d>(document: &'d Document, path: &str, found: &mut Vec<&'d Bson>) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(value) = document.get(first) else { return };
    let each = match value {
        Bson::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    for value in each {
        match (value, rest) {
            (Bson::Null | Bson::Undefined, _) => {}
            (value, None) => found.push(value),
            (Bson::Document(inner), Some(rest)) => collect(inner, rest, found),
            (_, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn values_are_found_below_arrays_and_null_is_none() {
        let document = doc! { "a": { "b": 1 }, "tags": ["x", "y", null], "list": [{ "b": 2 }, { "c": 3 }, 4], "none": null };
        let values = |path: &str| values_at(&document, path).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(values("a.b"), [Bson::Int32(1)]);
        assert_eq!(values("tags"), [Bson::from("x"), Bson::from("y")]);
        assert_eq!(values("tags[]"), values("tags"));
        assert_eq!(values("list.b"), [Bson::Int32(2)]);
        assert_eq!(values("a"), [Bson::Document(doc! { "b": 1 })]);
        assert!(values("none").is_empty() && values("a.x").is_empty() && values("none.x").is_empty());
    }
}
