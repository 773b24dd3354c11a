//! Counter rules made in Rust.

use super::counter_rules::{CountedOp, CounterRetention, RuleScope};
use crate::{Json, json};

/// A counter rule, as it stands in `counterRules.rules`: which versions it counts.
/// [`ConfigBuilder::build`](super::ConfigBuilder::build) checks it.
///
/// ```
/// use chronos_db::config::{Config, CountedOp, CounterRule, RuleScope};
/// use chronos_db::json;
///
/// let config = Config::embedded_builder("/var/lib/app".as_ref())
///     .counter_rule(
///         CounterRule::new("logins").on([CountedOp::Create]).when(json!({"action": "login"})).count_unique(["userId"]),
///     )
///     .counter_rule(CounterRule::new("openNow").when(json!({"status": "open"})).gauge())
///     .counter_rule(CounterRule::new("large").scope(RuleScope::Payload).when(json!({"cart.total": {"$gte": 100}})))
///     .build()?;
///
/// let error = Config::embedded_builder("/var/lib/app".as_ref())
///     .counter_rule(CounterRule::new("bad").when(json!({"$where": "1"})))
///     .build()
///     .unwrap_err();
/// assert!(error.message().starts_with("counterRules.rules[0].when: "));
/// # Ok::<(), chronos_db::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a rule does nothing until it is part of a configuration"]
pub struct CounterRule {
    name: String,
    on: Option<Vec<CountedOp>>,
    scope: RuleScope,
    when: Option<Json>,
    unique: Vec<String>,
    is_gauge: bool,
}

// Its filter holds values of documents.
crate::debug_some!(CounterRule { name, on, scope, unique, is_gauge });

impl CounterRule {
    /// A rule of this name that counts every version.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, on: None, scope: RuleScope::Meta, when: None, unique: Vec::new(), is_gauge: false }
    }

    /// Counts these operations alone. Default: all three.
    pub fn on(mut self, operations: impl IntoIterator<Item = CountedOp>) -> Self {
        self.on = Some(operations.into_iter().collect());
        self
    }

    /// What of a version its filter looks at. Default: [`RuleScope::Meta`].
    pub fn scope(mut self, scope: RuleScope) -> Self {
        self.scope = scope;
        self
    }

    /// Counts the versions that match a filter of chronos-db alone. A deletion is judged by the document that
    /// it deletes. Default: every version.
    pub fn when(mut self, filter: impl Into<Json>) -> Self {
        self.when = Some(filter.into());
        self
    }

    /// Counts each value of these indexed properties, too.
    pub fn count_unique<P: Into<String>>(mut self, properties: impl IntoIterator<Item = P>) -> Self {
        self.unique = properties.into_iter().map(Into::into).collect();
        self
    }

    /// Also counts the live items that match now.
    pub fn gauge(mut self) -> Self {
        self.is_gauge = true;
        self
    }

    /// As a file has it.
    pub(super) fn written(self) -> Json {
        let Self { name, on, scope, when, unique, is_gauge } = self;
        let mut written = json!({ "name": name, "scope": scope.as_str(), "countUnique": unique });
        if let Some(on) = on {
            written["on"] = on.into_iter().map(|op| Json::from(op.as_str())).collect();
        }
        if let Some(when) = when {
            written["when"] = when;
        }
        if is_gauge {
            written["mode"] = "gauge".into();
        }
        written
    }
}

impl CounterRetention {
    /// Keeps the counts of this many days before the present one. Default: in none.
    #[must_use]
    pub const fn days(mut self, days: u32) -> Self {
        self.days = Some(days);
        self
    }

    /// Keeps the counts of this many weeks before the present one. Default: in none.
    #[must_use]
    pub const fn weeks(mut self, weeks: u32) -> Self {
        self.weeks = Some(weeks);
        self
    }

    /// Keeps the counts of this many months before the present one. Default: in none.
    #[must_use]
    pub const fn months(mut self, months: u32) -> Self {
        self.months = Some(months);
        self
    }

    /// `retention`, as a file has it.
    pub(super) fn written(self) -> Json {
        let mut counters = json!({});
        for (name, kept) in [("days", self.days), ("weeks", self.weeks), ("months", self.months)] {
            if let Some(kept) = kept {
                counters[name] = kept.into();
            }
        }
        json!({ "counters": counters })
    }
}
