//! What callers get: totals, buckets, progress.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::record::{Owner, Record};
use crate::config::CheckedRule;
use crate::projections::log::DamagedRow;
use crate::{Json, Timestamp, json};

/// What a rule has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleTotals {
    /// The versions that matched.
    pub counts: Counts,
    /// How many different values each property of `countUnique` had.
    pub unique: BTreeMap<String, u64>,
    /// With `mode: gauge`, how many live items match now.
    pub gauge: Option<u64>,
}

/// The counters of a collection, as of `cv`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// The tenant whose they are; none for what several have together.
    pub tenant: Option<String>,
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// All versions.
    pub counts: Counts,
    /// By the names of the rules of this configuration.
    pub rules: BTreeMap<String, RuleTotals>,
    /// The version of the collection up to which everything is counted, and nothing beyond; −1 while it is
    /// empty.
    pub cv: i64,
}

impl Totals {
    /// What of stored totals the rules of a configuration show.
    pub(super) fn of<'c>(
        record: &Record,
        owner: &Owner,
        rules: impl Iterator<Item = &'c std::sync::Arc<CheckedRule>>,
    ) -> Self {
        let of_rule = |rule: &std::sync::Arc<CheckedRule>| {
            let known = record.find(rule).map(|(_, known)| (known.counts, known.unique.clone()));
            let (counts, unique) = known.unwrap_or_default();
            (rule.name.clone(), RuleTotals { counts, unique, gauge: None })
        };
        Self {
            tenant: owner.tenant.clone(),
            database: owner.database.clone(),
            collection: owner.collection.clone(),
            counts: record.counts,
            rules: rules.map(of_rule).collect(),
            cv: record.cv,
        }
    }

    /// As JSON: `{tenant, dbName, collection, created, updated, deleted, rules, cv}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let rules: Json = self.rules.iter().map(|(name, rule)| (name.clone(), rule.to_json())).collect();
        json!({
            "tenant": self.tenant.clone(), "dbName": &self.database, "collection": &self.collection,
            "created": self.counts.created, "updated": self.counts.updated, "deleted": self.counts.deleted,
            "rules": rules, "cv": self.cv,
        })
    }
}

impl RuleTotals {
    fn to_json(&self) -> Json {
        let mut json = self.counts.to_json();
        if !self.unique.is_empty() {
            json["unique"] = self.unique.iter().map(|(property, count)| (property.clone(), *count)).collect();
        }
        if let Some(gauge) = self.gauge {
            json["gauge"] = gauge.into();
        }
        json
    }
}

/// A value of a property, and the versions that had it.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct UniqueValue {
    /// The value.
    pub value: Json,
    /// The versions.
    pub counts: Counts,
    /// The latest time of one of them.
    pub last_at: Timestamp,
}

crate::debug_some!(UniqueValue { counts, last_at });

impl UniqueValue {
    /// As JSON: `{value, created, updated, deleted, lastAt}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "value": self.value.clone(), "created": self.counts.created, "updated": self.counts.updated,
            "deleted": self.counts.deleted, "lastAt": self.last_at.to_string(),
        })
    }
}

/// What was counted in a day, a week or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// Its beginning, UTC.
    pub from: Timestamp,
    /// All versions.
    pub counts: Counts,
    /// By the names of the rules of this configuration; those without a version are left out.
    pub rules: BTreeMap<String, Counts>,
}

impl Bucket {
    pub(super) fn at(from: Timestamp) -> Self {
        Self { from, counts: Counts::default(), rules: BTreeMap::new() }
    }

    /// As JSON: `{from, created, updated, deleted, rules}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let rules: Json = self.rules.iter().map(|(name, counts)| (name.clone(), counts.to_json())).collect();
        json!({
            "from": self.from.to_string(), "created": self.counts.created, "updated": self.counts.updated,
            "deleted": self.counts.deleted, "rules": rules,
        })
    }
}

/// How far the counters followed the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowProgress {
    /// The version of the collection up to which everything is counted and stored.
    pub cv: i64,
    /// Rows that this call counted.
    pub rows: u64,
    /// Another follower is running, and the work was left to it.
    pub busy: bool,
    /// How many rows were passed over because they are damaged.
    pub damaged_count: u64,
    /// Some of them.
    pub damaged: Vec<DamagedRow>,
}

/// The counters after a recount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recounted {
    /// As they are now.
    pub totals: Totals,
    /// Whether anything was different before.
    pub corrected: bool,
    /// How many rows, or documents of rows, could not be read and are not counted.
    pub damaged_count: u64,
}

impl Recounted {
    /// As JSON: that of the totals, and `corrected`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut json = self.totals.to_json();
        json["corrected"] = self.corrected.into();
        json
    }
}
