//! Counter rules over the whole document: a row records which of them its version matches, so that counters
//! can be made from rows alone.

use bson::Document;

use crate::documents::filter::{self, Filter};
use crate::json::Map;
use crate::{Error, Json, Result, json_to_nearest_bson};

/// The rules of scope `payload`.
#[derive(Clone, Debug, Default)]
pub(crate) struct PayloadRules(Vec<(String, Filter)>);

impl PayloadRules {
    /// Reads `analytics.counterRules` and `counterRules.rules`, which may repeat each other.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the rule whose `when` is not a filter.
    pub(crate) fn parse<'a>(sections: impl Fn(&str) -> Option<&'a Json>) -> Result<Self> {
        let lists = [
            sections("analytics").and_then(|s| s.get("counterRules")),
            sections("counterRules").and_then(|s| s.get("rules")),
        ];
        let mut rules: Vec<(String, Filter)> = Vec::new();
        for rule in lists.into_iter().flatten().filter_map(Json::as_array).flatten() {
            if rule.get("scope").and_then(Json::as_str) != Some("payload") {
                continue;
            }
            let name = rule
                .get("name")
                .and_then(Json::as_str)
                .ok_or_else(|| Error::validation("counterRules: a rule has no name"))?;
            let when = match rule.get("when") {
                None => Filter::All,
                Some(when) => filter::parse(when, &mut |path| Ok(path.to_owned())).map_err(|e| {
                    Error::validation(format!("counterRules: rule `{name}`: {}", e.message())).caused_by(e)
                })?,
            };
            if !rules.iter().any(|(other, _)| other == name) {
                rules.push((name.to_owned(), when));
            }
        }
        Ok(Self(rules))
    }

    /// The names of the rules that a document matches.
    pub(crate) fn matching(&self, document: &Map) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // A rule counts, it does not store: a number beyond 64 bits is compared as the nearest double.
        let document: Document =
            document.iter().map(|(key, value)| (key.clone(), json_to_nearest_bson(value))).collect();
        self.0.iter().filter(|(_, when)| when.matches(&document)).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::json;

    use super::*;

    #[test]
    fn a_rule_over_the_payload_sees_what_is_not_indexed() {
        let section = json!({"rules": [
            {"name": "large", "scope": "payload", "when": {"cart.total": {"$gte": 100}}},
            {"name": "meta", "scope": "meta", "when": {}},
            {"name": "all", "scope": "payload"},
        ]});
        let rules = PayloadRules::parse(|name| (name == "counterRules").then_some(&section)).unwrap();
        assert_eq!(rules.matching(json!({"cart": {"total": 120}}).as_object().unwrap()), ["large", "all"]);
        assert_eq!(rules.matching(json!({"cart": {"total": 20}}).as_object().unwrap()), ["all"]);
    }

    #[test]
    fn a_wrong_rule_is_named() {
        let section = json!({"rules": [{"name": "bad", "scope": "payload", "when": {"$where": "1"}}]});
        let error = PayloadRules::parse(|name| (name == "counterRules").then_some(&section)).unwrap_err();
        assert!(error.message().contains("`bad`"), "{error}");
    }
}
