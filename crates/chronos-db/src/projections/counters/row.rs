//! The count of one value of a property, or of one day, week or month: a document that says up to which
//! number of the log it goes.
//!
//! What is in it follows from the log alone, so of two that are put for one count the later one has
//! everything of the earlier one: puts may come late, twice, and from several followers.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use sha2::{Digest as _, Sha256};

use super::counts::{self, Counts};
use super::period::Period;
use super::record::{Owner, RuleRecord};
use crate::Timestamp;
use crate::config::CountedOp;
use crate::documents::filter::key_encoding;
use crate::projections::analytics_db::hex;
use crate::records::{int, number};

/// The collection that a count is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// Beside the totals.
    Unique,
    Bucket(Period),
}

impl Table {
    pub(super) const ALL: [Self; 4] =
        [Self::Unique, Self::Bucket(Period::Day), Self::Bucket(Period::Week), Self::Bucket(Period::Month)];

    pub(super) const fn collection(self) -> &'static str {
        match self {
            Self::Unique => "cnt_total",
            Self::Bucket(Period::Day) => "cnt_daily",
            Self::Bucket(Period::Week) => "cnt_weekly",
            Self::Bucket(Period::Month) => "cnt_monthly",
        }
    }
}

/// What is counted.
#[derive(Clone, PartialEq)]
pub(super) enum RowKey {
    /// Versions that match a rule, by a value of a property.
    Unique { rule: usize, property: String, value: Bson },
    /// Versions of a period, all of them or those that match a rule.
    Bucket { period: Period, from: Timestamp, rule: Option<usize> },
}

crate::debug_some!(RowKey {});

/// One version that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) cv: i64,
    pub(super) op: CountedOp,
    pub(super) at: Timestamp,
}

/// What a piece of the log changes of one count: never empty, in the order of the log.
#[derive(Clone, Debug)]
pub(super) struct RowChange {
    pub(super) key: RowKey,
    pub(super) events: Vec<Event>,
}

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountRow {
    pub(super) counts: Counts,
    /// The numbers of the first and the last version in it.
    pub(super) first_cv: i64,
    pub(super) cv: i64,
    /// The latest time of a version in it.
    pub(super) last_at: Timestamp,
}

impl RowKey {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Unique { .. } => Table::Unique,
            Self::Bucket { period, .. } => Table::Bucket(*period),
        }
    }

    fn rule(&self) -> Option<usize> {
        match self {
            Self::Unique { rule, .. } => Some(*rule),
            Self::Bucket { rule, .. } => *rule,
        }
    }

    /// The `_id` of the count: one of a generation and a rule has it for good.
    pub(super) fn id(&self, owner: &Owner, generation: ObjectId, rules: &[RuleRecord]) -> String {
        let rule = self.rule().and_then(|rule| rules.get(rule)).map_or("", |rule| rule.id.as_str());
        let what = match self {
            Self::Unique { property, value, .. } => {
                let mut digest = Sha256::new();
                digest.update(rule.as_bytes());
                digest.update([0]);
                digest.update(property.as_bytes());
                digest.update([0]);
                // Numbers that are equal are one value, whatever their type.
                digest.update(key_encoding::encode(value));
                format!("u|{}", hex(&digest.finalize()[..16]))
            }
            Self::Bucket { from, .. } => format!("{}|{rule}", from.as_millis()),
        };
        format!("{}|{generation}|{what}", owner.id)
    }
}

impl CountRow {
    /// The count after `change`, of which it may have some already; none if it has everything.
    pub(super) fn after(before: Option<&Self>, change: &RowChange) -> Option<Self> {
        let mut next = before.copied();
        for event in &change.events {
            if next.is_some_and(|row| row.cv >= event.cv) {
                continue;
            }
            let row = next.get_or_insert(Self {
                counts: Counts::default(),
                first_cv: event.cv,
                cv: event.cv,
                last_at: event.at,
            });
            row.counts.add(event.op);
            row.cv = event.cv;
            row.last_at = row.last_at.max(event.at);
        }
        next.filter(|next| Some(next) != before)
    }

    /// The document of the count `id`.
    pub(super) fn stored(
        &self,
        id: &str,
        key: &RowKey,
        owner: &Owner,
        generation: ObjectId,
        rules: &[RuleRecord],
    ) -> Document {
        let mut document = doc! {
            "_id": id, "totals": &owner.id, "generation": generation,
            "tenant": owner.tenant.as_deref(), "dbName": &owner.database, "collection": &owner.collection,
        };
        if let Some(rule) = key.rule().and_then(|rule| rules.get(rule)) {
            document.insert("rule", &rule.id);
            document.insert("ruleName", &rule.rule.name);
        }
        match key {
            RowKey::Unique { property, value, .. } => {
                document.insert("propertyName", property);
                document.insert("propertyValue", value);
                document.insert("occurrences", counts::stored(self.counts.sum()));
            }
            RowKey::Bucket { from, .. } => {
                document.insert("from", *from);
            }
        }
        self.counts.put(&mut document);
        document.insert("firstCv", int(self.first_cv));
        document.insert("cv", int(self.cv));
        document.insert("lastAt", self.last_at);
        document
    }

    /// None if it is damaged.
    pub(super) fn read(document: &Document) -> Option<Self> {
        Some(Self {
            counts: Counts::read(document)?,
            first_cv: number(document, "firstCv")?,
            cv: number(document, "cv")?,
            last_at: (*document.get_datetime("lastAt").ok()?).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(events: &[i64]) -> RowChange {
        let event = |cv: &i64| Event { cv: *cv, op: CountedOp::Create, at: Timestamp::from_millis(*cv) };
        let key = RowKey::Bucket { period: Period::Day, from: Timestamp::default(), rule: None };
        RowChange { key, events: events.iter().map(event).collect() }
    }

    #[test]
    fn a_count_takes_each_version_once_however_the_log_is_cut() {
        let whole = CountRow::after(None, &change(&[1, 4, 7, 9])).unwrap();
        assert_eq!((whole.counts.created, whole.first_cv, whole.cv), (4, 1, 9));
        let first = CountRow::after(None, &change(&[1, 4])).unwrap();
        let second = CountRow::after(Some(&first), &change(&[4, 7, 9])).unwrap();
        assert_eq!(second, whole);
        assert_eq!(CountRow::after(Some(&whole), &change(&[4, 7])), None, "it is ahead of them");
    }
}
