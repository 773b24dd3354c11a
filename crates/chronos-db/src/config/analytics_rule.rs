//! Analytics rules made in Rust.

use std::sync::Arc;

use super::Config;
use super::analytics_rules::{AnalyticsOperation, AnalyticsRules, CrossTenantMode, Timeframe};
use crate::{Json, Result, json};

/// A rule as it stands in `analytics.timeBasedRules`: what is computed over the items of a collection.
/// [`ConfigBuilder::build`](super::ConfigBuilder::build) checks it.
///
/// ```
/// use chronos_db::config::{AnalyticsOperation, Config, TimeBasedRule, Timeframe};
/// use chronos_db::json;
///
/// let config = Config::embedded_builder("/var/lib/app".as_ref())
///     .time_based_rule(
///         TimeBasedRule::new("daily_revenue", "orders", AnalyticsOperation::Sum)
///             .query(json!({"status": "completed"}))
///             .field("amount")
///             .timeframe(Timeframe::Daily)
///             .newer_than("P2D"),
///     )
///     .time_based_rule(TimeBasedRule::new("by_customer", "orders", AnalyticsOperation::Count).arguments(["customerId"]))
///     .build()?;
///
/// let error = Config::embedded_builder("/var/lib/app".as_ref())
///     .time_based_rule(TimeBasedRule::new("bad", "orders", AnalyticsOperation::Sum))
///     .build()
///     .unwrap_err();
/// assert_eq!(error.message(), "analytics.timeBasedRules[0].field: is missing or empty");
/// # Ok::<(), chronos_db::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a rule does nothing until it is part of a configuration"]
pub struct TimeBasedRule {
    rule: Written,
    operation: AnalyticsOperation,
    timeframe: Option<Timeframe>,
    arguments: Vec<String>,
}

// Its filter holds values of documents.
crate::debug_some!(TimeBasedRule { rule, operation, timeframe, arguments });

/// A rule as it stands in `analytics.crossTenantRules`: what is computed over the items that several tenants have
/// in a collection of one name. [`ConfigBuilder::build`](super::ConfigBuilder::build) checks it.
///
/// ```
/// use chronos_db::config::{Config, CrossTenantMode, CrossTenantRule, Database};
///
/// let active = CrossTenantRule::new("active_tenants", "events", CrossTenantMode::Boolean, "all", ["a", "b"]).newer_than("P1D");
/// let config = Config::builder()
///     .embedded("here", "/var/lib/app")
///     .database(Database::runtime("all", "here", "all"))
///     .database(Database::runtime("a", "here", "a"))
///     .database(Database::runtime("b", "here", "b"))
///     .cross_tenant_rule(active)
///     .build()?;
/// # Ok::<(), chronos_db::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a rule does nothing until it is part of a configuration"]
pub struct CrossTenantRule {
    rule: Written,
    mode: CrossTenantMode,
    master: String,
    tenants: Vec<String>,
}

crate::debug_some!(CrossTenantRule { rule, mode, master, tenants });

/// What rules of both kinds say.
#[derive(Clone)]
struct Written {
    name: String,
    collection: String,
    query: Option<Json>,
    field: Option<String>,
    newer_than: Option<String>,
    older_than: Option<String>,
}

crate::debug_some!(Written { name, collection, field, newer_than, older_than });

impl Written {
    fn new(name: impl Into<String>, collection: impl Into<String>) -> Self {
        let (name, collection) = (name.into(), collection.into());
        Self { name, collection, query: None, field: None, newer_than: None, older_than: None }
    }

    /// As a file has it.
    fn into_json(self) -> Json {
        let mut written = json!({ "name": self.name, "collection": self.collection });
        if let Some(query) = self.query {
            written["query"] = query;
        }
        if let Some(field) = self.field {
            written["field"] = field.into();
        }
        let bounds = [("newerThan", self.newer_than), ("olderThan", self.older_than)];
        let bounds: Vec<(&str, String)> =
            bounds.into_iter().filter_map(|(key, bound)| Some((key, bound?))).collect();
        if !bounds.is_empty() {
            written["relativeTime"] = json!({});
            for (key, bound) in bounds {
                written["relativeTime"][key] = bound.into();
            }
        }
        written
    }
}

/// The setters that rules of both kinds have.
macro_rules! common {
    () => {
        /// Looks at the items that match a filter of chronos-db alone. Default: at all.
        pub fn query(mut self, filter: impl Into<Json>) -> Self {
            self.rule.query = Some(filter.into());
            self
        }

        /// Takes the values of this indexed property.
        pub fn field(mut self, property: impl Into<String>) -> Self {
            self.rule.field = Some(property.into());
            self
        }

        /// Looks at items alone that were created this long ago or later: an ISO-8601 duration, such as `PT1H` or
        /// `P1M`.
        pub fn newer_than(mut self, duration: impl Into<String>) -> Self {
            self.rule.newer_than = Some(duration.into());
            self
        }

        /// Looks at items alone that were created this long ago or earlier.
        pub fn older_than(mut self, duration: impl Into<String>) -> Self {
            self.rule.older_than = Some(duration.into());
            self
        }
    };
}

impl TimeBasedRule {
    /// A rule of this name over the live items of a collection, with one result.
    pub fn new(
        name: impl Into<String>,
        collection: impl Into<String>,
        operation: AnalyticsOperation,
    ) -> Self {
        Self { rule: Written::new(name, collection), operation, timeframe: None, arguments: Vec::new() }
    }

    common!();

    /// Keeps a result for each timeframe, of the items that were last changed in it. Default: one result.
    pub fn timeframe(mut self, timeframe: Timeframe) -> Self {
        self.timeframe = Some(timeframe);
        self
    }

    /// Keeps a result for each combination of the values of these indexed properties.
    pub fn arguments<P: Into<String>>(mut self, properties: impl IntoIterator<Item = P>) -> Self {
        self.arguments = properties.into_iter().map(Into::into).collect();
        self
    }

    fn written(self) -> Json {
        let mut written = self.rule.into_json();
        written["operation"] = self.operation.as_str().into();
        written["saveMode"] = if self.timeframe.is_some() { "timeframe" } else { "global" }.into();
        if let Some(timeframe) = self.timeframe {
            written["timeframe"] = timeframe.as_str().into();
        }
        if !self.arguments.is_empty() {
            written["arguments"] = self.arguments.into_iter().map(Json::from).collect();
        }
        written
    }
}

impl CrossTenantRule {
    /// A rule of this name over the live items of these tenants, whose result is kept where the analytics of the
    /// tenant `master` are.
    pub fn new<T: Into<String>>(
        name: impl Into<String>,
        collection: impl Into<String>,
        mode: CrossTenantMode,
        master: impl Into<String>,
        tenants: impl IntoIterator<Item = T>,
    ) -> Self {
        let tenants = tenants.into_iter().map(Into::into).collect();
        Self { rule: Written::new(name, collection), mode, master: master.into(), tenants }
    }

    common!();

    fn written(self) -> Json {
        let mut written = self.rule.into_json();
        written["mode"] = self.mode.as_str().into();
        written["masterTenantId"] = self.master.into();
        written["slaveTenantIds"] = self.tenants.into_iter().map(Json::from).collect();
        written
    }
}

/// Adds the rules of a builder.
pub(super) fn add(
    config: &mut Config,
    time_based: Vec<TimeBasedRule>,
    cross_tenant: Vec<CrossTenantRule>,
) -> Result<()> {
    if time_based.is_empty() && cross_tenant.is_empty() {
        return Ok(());
    }
    let time_based: Json = time_based.into_iter().map(TimeBasedRule::written).collect();
    let cross_tenant: Json = cross_tenant.into_iter().map(CrossTenantRule::written).collect();
    let written = json!({ "timeBasedRules": time_based, "crossTenantRules": cross_tenant });
    config.sections.insert("analytics".to_owned(), written);
    config.analytics = Arc::new(AnalyticsRules::read(&config.sections, &mut config.warnings)?);
    Ok(())
}
