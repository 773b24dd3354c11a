//! The result of a rule, as it is stored and shown.

use bson::{Bson, Document, doc};
use sha2::{Digest as _, Sha256};

use crate::config::{CrossTenant, TimeBased};
use crate::projections::analytics_db::hex;
use crate::records::int;
use crate::{Error, Json, Result, Timestamp, bson_to_json, json};

/// The field by which the newest of two runs of a rule wins.
pub(super) const RUN: &str = "run";
/// The digest of a rule's definition, in a result.
pub(super) const DEFINITION: &str = "definition";
/// Whose result it is: what the counters of the same collection are stored under.
pub(super) const OWNER: &str = "owner";
/// The digest of the arguments of a group.
pub(super) const GROUP: &str = "group";
/// The values by which a grouped result is grouped.
pub(super) const ARGUMENTS: &str = "arguments";
pub(super) const RULE: &str = "ruleName";
pub(super) const TIMESTAMP: &str = "timestamp";

/// A result of an analytics rule.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct AnalyticsResult {
    /// Its id: the same for the same rule, timeframe and group.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// The collection it is about.
    pub collection: String,
    /// The tenant whose items it is about; of a rule across tenants, the one whose analytics have it.
    pub tenant: Option<String>,
    /// The property whose values were taken.
    pub field: Option<String>,
    /// What was found; null where there was nothing to find.
    pub value: Json,
    /// When the timeframe begins; without one, the moment that the rule was run for.
    pub timestamp: Timestamp,
    /// When it was computed, by the store's clock.
    pub computed_at: Timestamp,
    /// What only rules of its kind say.
    pub of: ResultOf,
}

// The values are of documents.
crate::debug_some!(AnalyticsResult { id, rule, collection, tenant, field, timestamp, computed_at });

/// What results of one kind of rule say beside the others.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ResultOf {
    /// Of `analytics.timeBasedRules`.
    #[non_exhaustive]
    TimeBased {
        /// Such as `sum`.
        operation: String,
        /// Such as `daily`; none: there is one result in all.
        timeframe: Option<String>,
        /// The values of the rule's arguments, in their order; none if it has none.
        arguments: Option<Vec<Json>>,
    },
    /// Of `analytics.crossTenantRules`.
    #[non_exhaustive]
    CrossTenant {
        /// Such as `boolean`.
        mode: String,
        /// Whose analytics have it.
        master: String,
        /// The value of each tenant.
        tenants: Vec<(String, Json)>,
    },
}

/// Without values of documents.
impl std::fmt::Debug for ResultOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TimeBased { .. } => "TimeBased",
            Self::CrossTenant { .. } => "CrossTenant",
        })
    }
}

impl AnalyticsResult {
    /// Returns the result as JSON, in the shape in which it is stored.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut json = json!({ "_id": &self.id, "ruleName": &self.rule, "collection": &self.collection });
        match &self.of {
            ResultOf::TimeBased { operation, .. } => json["operation"] = operation.as_str().into(),
            ResultOf::CrossTenant { mode, .. } => json["mode"] = mode.as_str().into(),
        }
        if let Some(field) = &self.field {
            json["field"] = field.as_str().into();
        }
        json["value"] = self.value.clone();
        if let ResultOf::TimeBased { timeframe: Some(timeframe), .. } = &self.of {
            json["timeframe"] = timeframe.as_str().into();
        }
        json["timestamp"] = self.timestamp.to_string().into();
        match &self.of {
            ResultOf::TimeBased { arguments, .. } => {
                json["arguments"] =
                    arguments.as_ref().map(|values| values.iter().cloned().collect::<Json>()).into();
                if let Some(tenant) = &self.tenant {
                    json["tenantId"] = tenant.as_str().into();
                }
            }
            ResultOf::CrossTenant { master, tenants, .. } => {
                json["masterTenantId"] = master.as_str().into();
                let each =
                    tenants.iter().map(|(tenant, value)| json!({ "tenantId": tenant, "value": value }));
                json["slaveResults"] = each.collect();
            }
        }
        json["computedAt"] = self.computed_at.to_string().into();
        json
    }

    pub(super) fn read(stored: &Document) -> Result<Self> {
        let id = stored.get_str("_id").unwrap_or_default();
        let need = |field: &'static str| {
            move || Error::database(format!("the stored result `{id}` has no `{field}` that can be read"))
        };
        let text = |field: &str| stored.get_str(field).ok().map(str::to_owned);
        let time = |field: &str| stored.get_datetime(field).ok().map(|at| Timestamp::from(*at));
        let of = match text("operation") {
            Some(operation) => ResultOf::TimeBased {
                operation,
                timeframe: text("timeframe"),
                arguments: stored
                    .get_array(ARGUMENTS)
                    .ok()
                    .map(|values| values.iter().map(bson_to_json).collect()),
            },
            None => ResultOf::CrossTenant {
                mode: text("mode").ok_or_else(need("mode"))?,
                master: text("masterTenantId").ok_or_else(need("masterTenantId"))?,
                tenants: stored
                    .get_array("slaveResults")
                    .map(|each| each.iter().filter_map(of_tenant).collect())
                    .unwrap_or_default(),
            },
        };
        Ok(Self {
            id: id.to_owned(),
            rule: text(RULE).ok_or_else(need(RULE))?,
            collection: text("collection").ok_or_else(need("collection"))?,
            tenant: text("tenantId"),
            field: text("field"),
            value: stored.get("value").map(bson_to_json).ok_or_else(need("value"))?,
            timestamp: time(TIMESTAMP).ok_or_else(need(TIMESTAMP))?,
            computed_at: time("computedAt").unwrap_or_default(),
            of,
        })
    }
}

fn of_tenant(stored: &Bson) -> Option<(String, Json)> {
    let stored = stored.as_document()?;
    Some((stored.get_str("tenantId").ok()?.to_owned(), bson_to_json(stored.get("value")?)))
}

/// What every result of one run has.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    pub(super) owner: String,
    pub(super) tenant: Option<String>,
    pub(super) definition: String,
    pub(super) run: i64,
    pub(super) computed_at: Timestamp,
}

impl Stamp {
    /// A result of a time-based rule. `group` is the digest of its arguments.
    pub(super) fn time_based(
        &self,
        timed: &TimeBased,
        timestamp: Timestamp,
        (group, arguments): (&str, Vec<Bson>),
        value: Bson,
    ) -> Document {
        let rule = &timed.rule;
        let place = match timed.timeframe {
            Some(_) => timestamp.as_millis().to_string(),
            None => "global".to_owned(),
        };
        let kind = timed.timeframe.map_or("global", |timeframe| timeframe.as_str());
        let tail = digest([self.owner.as_bytes(), kind.as_bytes(), group.as_bytes()]);
        let mut result = doc! { "_id": format!("{}_{place}_{}", rule.name, &tail[..24]), RULE: &rule.name, "collection": &rule.collection };
        result.insert("operation", timed.operation.as_str());
        if let Some(field) = &rule.field {
            result.insert("field", field);
        }
        result.insert("value", value);
        if let Some(timeframe) = timed.timeframe {
            result.insert("timeframe", timeframe.as_str());
        }
        result.insert(TIMESTAMP, timestamp);
        if !timed.arguments.is_empty() {
            result.insert(ARGUMENTS, arguments);
            result.insert(GROUP, group);
        }
        self.complete(result)
    }

    /// The result of a rule across tenants.
    pub(super) fn cross_tenant(
        &self,
        cross: &CrossTenant,
        timestamp: Timestamp,
        value: Bson,
        tenants: Vec<(String, Bson)>,
    ) -> Document {
        let rule = &cross.rule;
        let tail = digest([self.owner.as_bytes(), b"across"]);
        let mut result = doc! { "_id": format!("{}_global_{}", rule.name, &tail[..24]), RULE: &rule.name, "collection": &rule.collection };
        result.insert("mode", cross.mode.as_str());
        if let Some(field) = &rule.field {
            result.insert("field", field);
        }
        result.insert("value", value);
        result.insert(TIMESTAMP, timestamp);
        result.insert("masterTenantId", &cross.master);
        let each = tenants
            .into_iter()
            .map(|(tenant, value)| Bson::from(doc! { "tenantId": tenant, "value": value }));
        result.insert("slaveResults", each.collect::<Vec<Bson>>());
        self.complete(result)
    }

    fn complete(&self, mut result: Document) -> Document {
        if let Some(tenant) = &self.tenant {
            result.insert("tenantId", tenant);
        }
        result.insert(OWNER, &self.owner);
        result.insert(DEFINITION, &self.definition);
        result.insert(RUN, int(self.run));
        result.insert("computedAt", self.computed_at);
        result
    }
}

/// Hex digits that tell lists of texts apart.
pub(super) fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex(&digest.finalize())
}
