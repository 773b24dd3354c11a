//! Rules that compute something over the items of a collection: `analytics.timeBasedRules` and
//! `analytics.crossTenantRules`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::counter_rules::sorted;
use super::relative_time::{RelativeTime, Window};
use super::section::{Section, wrong};
use super::{Config, DatabaseType, Selector, Warning};
use crate::documents::filter;
use crate::{Json, Result, Timestamp, json, validate_name};

/// What a rule makes of the numbers it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnalyticsOperation {
    /// How many items there are; with a field, how many values it has.
    Count,
    /// The sum; 0 of nothing.
    Sum,
    /// The mean.
    Average,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The one in the middle; the mean of the two in the middle.
    Median,
}

impl AnalyticsOperation {
    const ALL: [Self; 6] = [Self::Count, Self::Sum, Self::Average, Self::Max, Self::Min, Self::Median];

    /// Returns its name in configurations and results, such as `average`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Average => "average",
            Self::Max => "max",
            Self::Min => "min",
            Self::Median => "median",
        }
    }
}

impl fmt::Display for AnalyticsOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule across tenants makes of what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossTenantMode {
    /// How many of the tenants have such an item.
    Boolean,
    /// The sum over the items of all tenants; 0 of nothing.
    Sum,
    /// The largest value of all tenants.
    Max,
    /// The smallest value of all tenants.
    Min,
    /// The median over the items of all tenants together.
    Median,
}

impl CrossTenantMode {
    const ALL: [Self; 5] = [Self::Boolean, Self::Sum, Self::Max, Self::Min, Self::Median];

    /// Returns its name in configurations and results, such as `boolean`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
            Self::Median => "median",
        }
    }
}

impl fmt::Display for CrossTenantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A span of the calendar, in UTC, for each of which a rule keeps a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeframe {
    /// From the full hour.
    Hourly,
    /// From midnight.
    Daily,
    /// From the first.
    Monthly,
}

impl Timeframe {
    const ALL: [Self; 3] = [Self::Hourly, Self::Daily, Self::Monthly];

    /// Returns its name in configurations and results, such as `daily`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Monthly => "monthly",
        }
    }

    /// The beginning of the timeframe that a moment is in; a moment beyond the year 9999 is a timeframe of its
    /// own.
    pub(crate) fn start(self, at: Timestamp) -> Timestamp {
        const HOUR: i64 = 3_600_000;
        match self {
            Self::Hourly => Timestamp::from_millis(at.as_millis().div_euclid(HOUR).saturating_mul(HOUR)),
            Self::Daily => {
                Timestamp::from_millis(at.as_millis().div_euclid(24 * HOUR).saturating_mul(24 * HOUR))
            }
            Self::Monthly => at
                .civil()
                .and_then(|at| Timestamp::of_civil(at.date().first_of_month().at(0, 0, 0, 0)))
                .unwrap_or(at),
        }
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What rules of both kinds say.
#[derive(Clone)]
pub(crate) struct AnalyticsRule {
    pub(crate) name: String,
    pub(crate) collection: String,
    /// The filter of its items.
    pub(crate) query: Json,
    /// The property whose values it takes.
    pub(crate) field: Option<String>,
    relative_time: RelativeTime,
    /// Everything that decides what it computes, as text.
    pub(crate) definition: String,
    /// Where it stands in the configuration.
    path: String,
}

crate::debug_some!(AnalyticsRule { name, collection, field, relative_time });

impl AnalyticsRule {
    fn read(section: &mut Section<'_>, written: &Json, needs_field: bool) -> Result<Self> {
        let name = section.required_text("name")?.to_owned();
        let collection = section.required_text("collection")?.to_owned();
        validate_name("collection", &collection)
            .map_err(|error| section.wrong("collection", error.message()))?;
        let query = section.get("query").cloned().unwrap_or_else(|| json!({}));
        filter::parse(&query, &mut |path| Ok(path.to_owned()))
            .map_err(|error| section.wrong("query", error.message()).caused_by(error))?;
        let field = section.text("field")?.map(str::to_owned);
        match &field {
            None if needs_field => return Err(section.wrong("field", "is missing or empty")),
            Some(field) if !is_path(field) => return Err(section.wrong("field", "is not a property path")),
            _ => {}
        }
        let relative_time = RelativeTime::read(section)?;
        let (definition, path) = (sorted(written).to_string(), section.path().to_owned());
        Ok(Self { name, collection, query, field, relative_time, definition, path })
    }

    /// When the items that it looks at were created.
    pub(crate) fn window(&self, now: Timestamp) -> Window {
        self.relative_time.window(now)
    }
}

/// A rule over the items of one collection of one tenant.
#[derive(Clone, Debug)]
pub(crate) struct TimeBased {
    pub(crate) rule: AnalyticsRule,
    pub(crate) operation: AnalyticsOperation,
    /// One result for each; none for one in all.
    pub(crate) timeframe: Option<Timeframe>,
    /// The properties by whose values items are grouped.
    pub(crate) arguments: Vec<String>,
}

impl TimeBased {
    fn read(path: &str, value: &Json, warnings: &mut Vec<Warning>) -> Result<Self> {
        let mut section = Section::new(path.to_owned(), value)?;
        let operation = one_of(&mut section, "operation", AnalyticsOperation::ALL.map(|o| (o.as_str(), o)))?;
        let operation = operation.ok_or_else(|| section.wrong("operation", "is missing or empty"))?;
        let rule = AnalyticsRule::read(&mut section, value, operation != AnalyticsOperation::Count)?;
        let timeframe = one_of(&mut section, "timeframe", Timeframe::ALL.map(|t| (t.as_str(), t)))?;
        match (section.text("saveMode")?, timeframe) {
            (None | Some("timeframe"), Some(_)) | (None | Some("global"), None) => {}
            (Some("timeframe"), None) => return Err(section.wrong("timeframe", "is missing or empty")),
            (Some("global"), Some(_)) => {
                return Err(section.wrong("timeframe", "stands beside `saveMode: global`"));
            }
            (Some(other), _) => {
                let message = format!("`{}` is neither `global` nor `timeframe`", other.escape_debug());
                return Err(section.wrong("saveMode", message));
            }
        }
        let mut arguments: Vec<String> = Vec::new();
        for (at, property) in section.texts("arguments")? {
            if !is_path(property) {
                return Err(wrong(&at, "is not a property path"));
            }
            if arguments.iter().any(|known| known == property) {
                return Err(wrong(&at, "stands there twice"));
            }
            arguments.push(property.to_owned());
        }
        section.finish(warnings);
        Ok(Self { rule, operation, timeframe, arguments })
    }
}

/// A rule over a collection of several tenants.
#[derive(Clone, Debug)]
pub(crate) struct CrossTenant {
    pub(crate) rule: AnalyticsRule,
    pub(crate) mode: CrossTenantMode,
    /// Whose analytics database has the result.
    pub(crate) master: String,
    pub(crate) tenants: Vec<String>,
}

impl CrossTenant {
    fn read(path: &str, value: &Json, all: &[String], warnings: &mut Vec<Warning>) -> Result<Self> {
        let mut section = Section::new(path.to_owned(), value)?;
        let mode = one_of(&mut section, "mode", CrossTenantMode::ALL.map(|m| (m.as_str(), m)))?;
        let mode = mode.ok_or_else(|| section.wrong("mode", "is missing or empty"))?;
        let mut rule = AnalyticsRule::read(&mut section, value, mode != CrossTenantMode::Boolean)?;
        let master = section.required_text("masterTenantId")?.to_owned();
        let mut tenants: Vec<String> = Vec::new();
        for (at, tenant) in section.texts("slaveTenantIds")? {
            if tenants.iter().any(|known| known == tenant) {
                return Err(wrong(&at, "stands there twice"));
            }
            if !all.is_empty() && !all.iter().any(|known| known == tenant) {
                return Err(wrong(&at, "is not among `analytics.tenants`"));
            }
            tenants.push(tenant.to_owned());
        }
        if tenants.is_empty() {
            tenants = all.iter().filter(|tenant| **tenant != master).cloned().collect();
            rule.definition = format!("{} {}", rule.definition, tenants.join(" "));
        }
        if tenants.is_empty() {
            return Err(section.wrong("slaveTenantIds", "needs at least one tenant"));
        }
        section.finish(warnings);
        Ok(Self { rule, mode, master, tenants })
    }
}

/// One of some words.
fn one_of<T: Copy, const N: usize>(
    section: &mut Section<'_>,
    key: &'static str,
    words: [(&'static str, T); N],
) -> Result<Option<T>> {
    let Some(text) = section.text(key)? else { return Ok(None) };
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meant)) => Ok(Some(*meant)),
        None => {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{}` is none of {}", text.escape_debug(), known.join(", "));
            Err(section.wrong(key, message))
        }
    }
}

fn is_path(text: &str) -> bool {
    text.split('.').all(|segment| !segment.is_empty() && !segment.starts_with('$')) && !text.contains('\0')
}

/// The rules of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnalyticsRules {
    pub(crate) time_based: Vec<Arc<TimeBased>>,
    pub(crate) cross_tenant: Vec<Arc<CrossTenant>>,
}

impl AnalyticsRules {
    /// # Errors
    /// `VALIDATION_ERROR` whose message starts with the JSON path of a rule that cannot be meant.
    pub(super) fn read(sections: &BTreeMap<String, Json>, warnings: &mut Vec<Warning>) -> Result<Self> {
        let mut rules = Self::default();
        let Some(written) = sections.get("analytics") else { return Ok(rules) };
        let mut section = Section::new("analytics".to_owned(), written)?;
        let tenants: Vec<String> =
            section.texts("tenants")?.into_iter().map(|(_, tenant)| tenant.to_owned()).collect();
        for (path, value) in section.list("timeBasedRules")? {
            let read = TimeBased::read(&path, value, warnings)?;
            rules.check_name(&read.rule)?;
            rules.time_based.push(Arc::new(read));
        }
        for (path, value) in section.list("crossTenantRules")? {
            let read = CrossTenant::read(&path, value, &tenants, warnings)?;
            rules.check_name(&read.rule)?;
            rules.cross_tenant.push(Arc::new(read));
        }
        Ok(rules)
    }

    /// One name, one rule: results are asked for by it.
    fn check_name(&self, new: &AnalyticsRule) -> Result<()> {
        match self.rules().find(|rule| rule.name == new.name) {
            None => Ok(()),
            Some(other) => {
                Err(wrong(&format!("{}.name", new.path), format!("is also the name of {}", other.path)))
            }
        }
    }

    fn rules(&self) -> impl Iterator<Item = &AnalyticsRule> {
        let across = self.cross_tenant.iter().map(|cross| &cross.rule);
        self.time_based.iter().map(|timed| &timed.rule).chain(across)
    }

    /// Checks what only the rest of the configuration shows: that properties are indexed, and tenants there.
    pub(super) fn check(&self, config: &Config) -> Result<Vec<Warning>> {
        for timed in &self.time_based {
            for property in &timed.arguments {
                check_indexed(config, &timed.rule, "arguments", property)?;
            }
        }
        for rule in self.rules() {
            if let Some(field) = &rule.field {
                check_indexed(config, rule, "field", field)?;
            }
        }
        let mut warnings = Vec::new();
        for cross in &self.cross_tenant {
            let slaves = cross.tenants.iter().map(|tenant| ("slaveTenantIds", tenant));
            for (key, tenant) in std::iter::once(("masterTenantId", &cross.master)).chain(slaves) {
                if !is_tenant(config, tenant) {
                    let tenant = tenant.escape_debug();
                    let message = format!(
                        "`{tenant}` is not a tenant of `databases.runtime`: the rule fails until it is"
                    );
                    warnings.push(Warning { path: format!("{}.{key}", cross.rule.path), message });
                }
            }
        }
        Ok(warnings)
    }
}

fn is_tenant(config: &Config, tenant: &str) -> bool {
    config.entries.iter().any(|entry| {
        entry.database_type == Some(DatabaseType::Runtime)
            && matches!(&entry.selector, Selector::Tenant(known) if known == tenant)
    })
}

/// Rules look at indexed properties alone.
fn check_indexed(config: &Config, rule: &AnalyticsRule, key: &str, property: &str) -> Result<()> {
    let declared = config.collection_maps.get(&rule.collection).map_or(&[][..], |map| map.indexed.as_slice());
    let is_indexed = declared.iter().any(|path| {
        let path = path.replace("[]", "");
        property == path
            || property.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'))
            || path.strip_prefix(property).is_some_and(|rest| rest.starts_with('.'))
    });
    if declared.is_empty() || is_indexed {
        return Ok(());
    }
    let known = declared.join(", ");
    let message = format!("`{property}` is not indexed in `{}`; indexed are: {known}", rule.collection);
    Err(wrong(&format!("{}.{key}", rule.path), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(analytics: Json) -> Result<Config> {
        let entry = |tenant: &str| json!({ "tenantId": tenant, "dbConnRef": "here", "dbName": tenant });
        let document = json!({
            "dbConnections": { "here": { "mongoUri": "embedded::memory:" } },
            "databases": { "runtime": { "tenantDatabases": [entry("a"), entry("b"), entry("m")] } },
            "collectionMaps": { "sales": { "indexedProps": ["n", "who.name", "tags[].id"] } },
            "analytics": analytics,
        });
        Config::from_json(&document, "".as_ref())
    }

    fn timed(change: Json) -> Json {
        let mut rule = json!({ "name": "r", "collection": "sales", "operation": "sum", "field": "n" });
        for (key, value) in change.as_object().into_iter().flatten() {
            rule[key.as_str()] = value.clone();
        }
        rule
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_named_by_its_path() {
        for (change, path) in [
            (json!({ "operation": "mode" }), "operation: `mode` is none of count, sum"),
            (json!({ "operation": null }), "operation: is missing"),
            (json!({ "collection": "a/b" }), "collection: "),
            (json!({ "query": { "a": { "$where": "1" } } }), "query: "),
            (json!({ "field": null }), "field: is missing"),
            (json!({ "field": "n..m" }), "field: is not a property path"),
            (json!({ "field": "price" }), "field: `price` is not indexed in `sales`"),
            (json!({ "timeframe": "yearly" }), "timeframe: `yearly` is none of hourly, daily, monthly"),
            (json!({ "saveMode": "timeframe" }), "timeframe: is missing"),
            (json!({ "saveMode": "global", "timeframe": "daily" }), "timeframe: stands beside"),
            (json!({ "saveMode": "often" }), "saveMode: "),
            (json!({ "arguments": ["n", "n"] }), "arguments[1]: stands there twice"),
            (json!({ "arguments": ["other"] }), "arguments: `other` is not indexed"),
            (json!({ "relativeTime": { "newerThan": "1 month" } }), "relativeTime.newerThan: "),
            (json!({ "name": "fine" }), "name: is also the name of analytics.timeBasedRules[0]"),
        ] {
            let fine = timed(json!({ "name": "fine" }));
            let error = config(json!({ "timeBasedRules": [fine, timed(change)] })).unwrap_err();
            let path = format!("analytics.timeBasedRules[1].{path}");
            assert!(error.message().starts_with(&path), "{error}, not {path}");
        }
        for field in ["n", "who", "who.name.first", "tags.id"] {
            config(json!({ "timeBasedRules": [timed(json!({ "field": field }))] })).unwrap();
        }
    }

    #[test]
    fn rules_across_tenants_name_tenants_or_mean_all_others() {
        let cross = |slaves: Json, tenants: Json| {
            let rule = json!({ "name": "x", "collection": "sales", "mode": "boolean", "masterTenantId": "m", "slaveTenantIds": slaves });
            config(json!({ "crossTenantRules": [rule], "tenants": tenants }))
        };
        let tenants = |slaves, all| cross(slaves, all).unwrap().analytics.cross_tenant[0].tenants.clone();
        assert_eq!(tenants(json!(["a", "b"]), json!([])), ["a", "b"]);
        assert_eq!(tenants(json!([]), json!(["b", "m", "a"])), ["b", "a"]);
        let wrong = |slaves, all| cross(slaves, all).unwrap_err().message().to_owned();
        let path = "analytics.crossTenantRules[0].slaveTenantIds";
        assert!(wrong(json!([]), json!([])).starts_with(&format!("{path}: needs at least one")));
        assert!(wrong(json!(["a", "c"]), json!(["a", "b"])).starts_with(&format!("{path}[1]: is not among")));
        let warned = cross(json!(["a", "c"]), json!([])).unwrap().warnings;
        assert!(
            warned.iter().any(|warning| warning.path == path && warning.message.contains("`c`")),
            "{warned:?}"
        );
    }

    #[test]
    fn timeframes_begin_at_the_full_hour_at_midnight_and_on_the_first() {
        for (at, hour, day, month) in [
            ("2024-03-31T23:59:59.999Z", "2024-03-31T23:00:00Z", "2024-03-31", "2024-03-01"),
            ("1969-12-31T23:00:00Z", "1969-12-31T23:00:00Z", "1969-12-31", "1969-12-01"),
        ] {
            let at = Timestamp::parse(at).unwrap();
            let starts = Timeframe::ALL.map(|timeframe| timeframe.start(at));
            assert_eq!(starts, [hour, day, month].map(|start| Timestamp::parse(start).unwrap()));
        }
        let beyond = Timestamp::from_millis(i64::MIN);
        assert!(Timeframe::ALL.into_iter().all(|timeframe| timeframe.start(beyond) <= beyond));
    }
}
