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
use crate::records::{ItemId, int, number};

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

/// What one version means for a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    Counts(CountedOp),
    /// Its item is erased, and a value with it that no other item had.
    Erases,
}

/// One version that a count is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) cv: i64,
    pub(super) what: Happening,
    pub(super) at: Timestamp,
    pub(super) item: ItemId,
}

/// What a piece of the log changes of one count, in the order of the log. Nothing, if the values of its
/// versions are erased, and the count has them from a follower that saw them.
#[derive(Clone, Debug)]
pub(super) struct RowChange {
    pub(super) key: RowKey,
    pub(super) events: Vec<Event>,
}

impl RowChange {
    /// Takes in an event in the order of the log; each version is one.
    pub(super) fn add(&mut self, event: Event) {
        let at = self.events.partition_point(|known| known.cv < event.cv);
        if self.events.get(at).is_none_or(|known| known.cv != event.cv) {
            self.events.insert(at, event);
        }
    }
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
    /// Of a value: the item that all its versions are of, or were; none if they are of several.
    pub(super) item: Option<ItemId>,
    /// The value went with its item. What is left keeps a follower that is behind from bringing it back.
    pub(super) is_void: bool,
}

/// The field by which counts of erased values are found.
pub(super) const VOID_AT: &str = "voidAt";
/// The field that names the only item that has a value.
pub(super) const ITEM: &str = "item";

/// Whether a stored count is of a value that was erased.
pub(super) fn is_void(document: &Document) -> bool {
    document.contains_key(VOID_AT)
}

impl RowKey {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Unique { .. } => Table::Unique,
            Self::Bucket { period, .. } => Table::Bucket(*period),
        }
    }

    /// What a stored count of a value is about; none if that is of no rule of these.
    pub(super) fn of_value(document: &Document, rules: &[RuleRecord]) -> Option<Self> {
        let id = document.get_str("rule").ok()?;
        let rule = rules.iter().position(|known| known.id == id)?;
        let property = document.get_str("propertyName").ok()?.to_owned();
        // One that is erased already has none, and needs none: it stays as it is.
        let value = document.get("propertyValue").cloned().unwrap_or(Bson::Null);
        Some(Self::Unique { rule, property, value })
    }

    pub(super) fn rule(&self) -> Option<usize> {
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
            next = match event.what {
                Happening::Counts(op) => {
                    Some(next.filter(|row| !row.is_void).unwrap_or_else(|| Self::new(event)).plus(op, event))
                }
                Happening::Erases => next.map(|row| row.without(event)),
            };
        }
        next.filter(|next| Some(next) != before)
    }

    const fn new(event: &Event) -> Self {
        Self {
            counts: Counts { created: 0, updated: 0, deleted: 0 },
            first_cv: event.cv,
            cv: event.cv,
            last_at: event.at,
            item: Some(event.item),
            is_void: false,
        }
    }

    fn plus(mut self, op: CountedOp, event: &Event) -> Self {
        self.counts.add(op);
        self.cv = event.cv;
        self.last_at = self.last_at.max(event.at);
        self.item = self.item.filter(|item| *item == event.item);
        self
    }

    fn without(self, erasure: &Event) -> Self {
        if self.item != Some(erasure.item) {
            return self;
        }
        let counts = Counts::default();
        Self { counts, cv: erasure.cv, last_at: erasure.at, is_void: true, ..self }
    }

    /// The count with what `was` has of more versions, if these may be among the versions `left` that no longer say their
    /// values; none if that changes nothing.
    pub(super) fn keeping(self, was: &Self, left: Counts) -> Option<Self> {
        let more = was.counts.beyond(self.counts)?;
        if self.is_void || was.is_void || more.sum() == 0 || left.beyond(more).is_none() {
            return None;
        }
        let (cv, last_at) = (self.cv.max(was.cv), self.last_at.max(was.last_at));
        Some(Self { counts: was.counts, first_cv: self.first_cv.min(was.first_cv), cv, last_at, ..self })
    }

    /// Whether totals that go up to `position` count it as a value. It may be ahead of them by the next
    /// erasure at most.
    pub(super) const fn is_value_at(&self, position: i64) -> bool {
        self.first_cv <= position && (!self.is_void || self.cv > position)
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
                if self.is_void {
                    document.insert(VOID_AT, self.last_at);
                } else {
                    document.insert("propertyValue", value);
                    document.insert("occurrences", counts::stored(self.counts.sum()));
                }
                document.extend(self.item.map(|item| (ITEM.to_owned(), item.bson())));
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
            item: document.get_object_id(ITEM).ok().map(ItemId::new),
            is_void: is_void(document),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cv: i64, what: Happening, item: u8) -> Event {
        Event {
            cv,
            what,
            at: Timestamp::from_millis(cv),
            item: ItemId::new(ObjectId::from_bytes([item; 12])),
        }
    }

    fn change_of(events: &[Event]) -> RowChange {
        let key = RowKey::Bucket { period: Period::Day, from: Timestamp::default(), rule: None };
        let mut change = RowChange { key, events: Vec::new() };
        events.iter().for_each(|event| change.add(*event));
        change
    }

    fn change(cvs: &[i64]) -> RowChange {
        let created = |cv: &i64| event(*cv, Happening::Counts(CountedOp::Create), 1);
        change_of(&cvs.iter().map(created).collect::<Vec<_>>())
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

    #[test]
    fn a_count_keeps_what_versions_without_values_may_have_been() {
        let counted = |cvs: &[i64]| CountRow::after(None, &change(cvs)).unwrap();
        let (was, again) = (counted(&[1, 4, 7]), counted(&[4]));
        let left = |created| Counts { created, ..Counts::default() };
        assert_eq!(again.keeping(&was, left(2)), Some(was));
        assert_eq!(again.keeping(&was, left(1)), None, "there are not so many");
        assert_eq!(was.keeping(&again, left(2)), None, "that is what was wrong");
        assert_eq!(again.keeping(&again, left(2)), None);
    }

    #[test]
    fn a_value_goes_with_the_only_item_that_had_it_and_comes_with_the_next() {
        let created = Happening::Counts(CountedOp::Create);
        let (one, erased, other) =
            (event(1, created, 1), event(5, Happening::Erases, 1), event(9, created, 2));
        let void = CountRow::after(None, &change_of(&[one, erased])).unwrap();
        assert!(void.is_void && void.counts.sum() == 0);
        assert_eq!([void.is_value_at(0), void.is_value_at(4), void.is_value_at(5)], [false, true, false]);
        assert_eq!(
            CountRow::after(Some(&void), &change_of(&[one])),
            None,
            "who is behind does not bring it back"
        );
        let again = CountRow::after(Some(&void), &change_of(&[other])).unwrap();
        assert_eq!((again.first_cv, again.counts.created, again.item), (9, 1, Some(other.item)));
        let between = event(3, created, 2);
        let shared = CountRow::after(None, &change_of(&[one, erased, between])).unwrap();
        assert_eq!((shared.counts.created, shared.is_void, shared.cv), (2, false, 3), "another item has it");
    }
}
