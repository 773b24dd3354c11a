//! Counter rules over a version: a row records which of them its document matches, so that counters can be
//! made from rows alone.

use bson::Document;

use crate::config::{CounterRules, RuleScope};
use crate::documents::raw_bson;
use crate::json::Map;
use crate::records::model::VersionMeta;
use crate::{Result, json_to_nearest_bson};

/// The counter rules that versions are held against.
#[derive(Clone, Debug, Default)]
pub(crate) struct VersionRules(CounterRules);

impl VersionRules {
    pub(crate) fn new(rules: CounterRules) -> Self {
        Self(rules)
    }

    pub(crate) fn configured(&self) -> &CounterRules {
        &self.0
    }

    pub(crate) fn has_payload_rules(&self) -> bool {
        self.0.rules.iter().any(|rule| rule.scope == RuleScope::Payload)
    }

    /// The names of the rules of scope `payload` that a document matches.
    pub(crate) fn of_payload(&self, document: &Map) -> Vec<String> {
        if !self.has_payload_rules() {
            return Vec::new();
        }
        // A rule counts, it does not store: a number beyond 64 bits is compared as the nearest double.
        let document: Document =
            document.iter().map(|(key, value)| (key.clone(), json_to_nearest_bson(value))).collect();
        let rules = self.0.rules.iter().filter(|rule| rule.scope == RuleScope::Payload);
        rules.filter(|rule| rule.when.matches(&document)).map(|rule| rule.name.clone()).collect()
    }

    /// The names of the rules of either scope that a version matches.
    ///
    /// # Errors
    /// `TXN_ERROR` if its index entry is damaged.
    pub(crate) fn of_version(&self, meta: &VersionMeta) -> Result<Vec<String>> {
        if self.0.rules.is_empty() {
            return Ok(Vec::new());
        }
        let indexed = raw_bson::decode(&meta.indexed)?;
        let matches = self.0.rules.iter().filter(|rule| match rule.scope {
            RuleScope::Meta => rule.when.matches(&indexed),
            RuleScope::Payload => meta.rules.contains(&rule.name),
        });
        Ok(matches.map(|rule| rule.name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::config::Config;
    use crate::json;

    fn rules() -> VersionRules {
        let config = json!({
            "dbConnections": { "here": { "mongoUri": "embedded::memory:" } },
            "databases": { "runtime": { "tenantDatabases": [{ "tenantId": "a", "dbConnRef": "here", "dbName": "a" }] } },
            "counterRules": { "rules": [
                { "name": "large", "scope": "payload", "when": { "cart.total": { "$gte": 100 } } },
                { "name": "meta", "scope": "meta", "when": { "city": "Ulm" } },
                { "name": "all", "scope": "payload" },
            ] },
        });
        let config = Config::parse(&config.to_string(), ".".as_ref()).unwrap();
        VersionRules::new(CounterRules::of(&config).unwrap())
    }

    #[test]
    fn a_rule_over_the_payload_sees_what_is_not_indexed() {
        let rules = rules();
        assert_eq!(rules.of_payload(json!({"cart": {"total": 120}}).as_object().unwrap()), ["large", "all"]);
        assert_eq!(rules.of_payload(json!({"cart": {"total": 20}}).as_object().unwrap()), ["all"]);
    }

    #[test]
    fn what_is_erased_leaves_the_rules_of_both_scopes() {
        let meta = VersionMeta {
            indexed: std::sync::Arc::new(rawdoc! { "city": "Ulm" }),
            rules: vec!["large".to_owned(), "of another configuration".to_owned()],
            ..VersionMeta::default()
        };
        assert_eq!(rules().of_version(&meta).unwrap(), ["large", "meta"]);
    }
}
