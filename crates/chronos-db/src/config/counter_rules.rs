//! Counter rules: `counterRules.rules` and `analytics.counterRules`, and how long `retention.counters` keeps
//! what was counted in a day, a week or a month.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::section::{Section, below, wrong};
use super::{Config, Warning};
use crate::documents::filter::{self, Filter};
use crate::json::Map;
use crate::{Json, Result, json};

/// What of a version a counter rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleScope {
    /// The indexed properties.
    Meta,
    /// The whole document, when it is written.
    Payload,
}

impl RuleScope {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Payload => "payload",
        }
    }
}

/// What a version does, as counters see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CountedOp {
    /// It creates an item.
    Create,
    /// It updates one, enriches it or restores it.
    Update,
    /// It deletes one, or erases it while it is live.
    Delete,
}

impl CountedOp {
    const ALL: [Self; 3] = [Self::Create, Self::Update, Self::Delete];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One rule: which versions it counts.
#[derive(Clone, PartialEq)]
pub(crate) struct CheckedRule {
    pub(crate) name: String,
    /// Sorted.
    on: Vec<CountedOp>,
    pub(crate) scope: RuleScope,
    pub(crate) when: Filter,
    /// The properties whose values are counted apart, sorted.
    pub(crate) unique: Vec<String>,
    /// Whether it also tells how many live items match now.
    pub(crate) is_gauge: bool,
    /// The filter as it was written, with sorted keys.
    written: Json,
}

crate::debug_some!(CheckedRule { name, on, scope, unique, is_gauge });

impl CheckedRule {
    fn read(path: &str, value: &Json, warnings: &mut Vec<Warning>) -> Result<Self> {
        let mut section = Section::new(path.to_owned(), value)?;
        let name = section.required_text("name")?.to_owned();
        let mut on = Vec::new();
        let given = section.get("on").is_some();
        for (at, text) in section.texts("on")? {
            match CountedOp::ALL.into_iter().find(|op| op.as_str() == text) {
                Some(op) => on.push(op),
                None => return Err(wrong(&at, format!("`{text}` is none of CREATE, UPDATE, DELETE"))),
            }
        }
        if !given {
            on = CountedOp::ALL.to_vec();
        }
        let scope = match section.text("scope")? {
            None | Some("meta") => RuleScope::Meta,
            Some("payload") => RuleScope::Payload,
            Some(other) => {
                return Err(section.wrong("scope", format!("`{other}` is neither `meta` nor `payload`")));
            }
        };
        let is_gauge = match section.text("mode")? {
            None | Some("count") => false,
            Some("gauge") => true,
            Some(other) => {
                return Err(section.wrong("mode", format!("`{other}` is neither `count` nor `gauge`")));
            }
        };
        let (written, when) = match section.get("when") {
            None => (json!({}), Filter::All),
            Some(when) => {
                let when = sorted(when);
                let filter = filter::parse(&when, &mut |path| Ok(path.to_owned()))
                    .map_err(|error| section.wrong("when", error.message()).caused_by(error))?;
                (when, filter)
            }
        };
        let mut unique: Vec<String> =
            section.texts("countUnique")?.into_iter().map(|(_, property)| property.to_owned()).collect();
        section.finish(warnings);
        on.sort_unstable();
        on.dedup();
        unique.sort_unstable();
        unique.dedup();
        Ok(Self { name, on, scope, when, unique, is_gauge, written })
    }

    /// Everything that decides what it counts, as text: equal for rules that count the same.
    pub(crate) fn definition(&self) -> String {
        let on: Vec<Json> = self.on.iter().map(|op| op.as_str().into()).collect();
        let scope = self.scope.as_str();
        let unique: Vec<Json> = self.unique.iter().map(|property| property.as_str().into()).collect();
        json!({ "name": &self.name, "on": on, "scope": scope, "when": &self.written, "countUnique": unique })
            .to_string()
    }

    /// The rule of a [`definition`](Self::definition) that was stored.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is damaged.
    pub(crate) fn from_definition(text: &str) -> Result<Self> {
        let value = Json::parse(text).map_err(|error| wrong("definition", error))?;
        Self::read("definition", &value, &mut Vec::new())
    }

    /// Whether it counts what a version does.
    pub(crate) fn is_on(&self, op: CountedOp) -> bool {
        self.on.contains(&op)
    }

    /// The filter over heads, whose indexed properties stand below `entry`.
    ///
    /// # Errors
    /// None for a rule that was read.
    pub(crate) fn when_below(&self, entry: &str) -> Result<Filter> {
        filter::parse(&self.written, &mut |path| Ok(format!("{entry}.{path}")))
    }
}

/// The value with the keys of its objects in order, so that two ways to write it are one.
pub(super) fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(map) => {
            let members: BTreeMap<&String, Json> =
                map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Json::Object(members.into_iter().map(|(key, value)| (key.clone(), value)).collect::<Map>())
        }
        Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// In how many whole days, weeks and months before the present ones counts are kept; none where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterRetention {
    /// Days, UTC.
    pub days: Option<u32>,
    /// Weeks, from Monday.
    pub weeks: Option<u32>,
    /// Months, from the first.
    pub months: Option<u32>,
}

/// The rules of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct CounterRules {
    pub(crate) rules: Arc<[Arc<CheckedRule>]>,
    pub(crate) keep: CounterRetention,
}

impl CounterRules {
    /// The rules of a configuration that was read.
    ///
    /// # Errors
    /// As [`check`].
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Self::read(&config.sections, &mut Vec::new())
    }

    fn read(sections: &BTreeMap<String, Json>, warnings: &mut Vec<Warning>) -> Result<Self> {
        let mut rules: Vec<Arc<CheckedRule>> = Vec::new();
        for (outer, inner) in [("counterRules", "rules"), ("analytics", "counterRules")] {
            let Some(section) = sections.get(outer) else { continue };
            for (path, value) in Section::new(outer.to_owned(), section)?.list(inner)? {
                let rule = CheckedRule::read(&path, value, warnings)?;
                match rules.iter().find(|other| other.name == rule.name) {
                    None => rules.push(Arc::new(rule)),
                    Some(same) if **same == rule => {}
                    Some(_) => {
                        return Err(wrong(
                            &path,
                            format!(
                                "there is another rule of the name `{}`, which says something else",
                                rule.name
                            ),
                        ));
                    }
                }
            }
        }
        Ok(Self { rules: rules.into(), keep: CounterRetention::read(sections)? })
    }
}

impl CounterRetention {
    fn read(sections: &BTreeMap<String, Json>) -> Result<Self> {
        let Some(retention) = sections.get("retention") else { return Ok(Self::default()) };
        let mut retention = Section::new("retention".to_owned(), retention)?;
        let on = retention.enabled()?;
        let Some(mut section) = retention.section("counters")? else { return Ok(Self::default()) };
        if !section.enabled()? || !on {
            return Ok(Self::default());
        }
        let mut kept = |key| -> Result<Option<u32>> {
            let kept = section.number(key, 0, u64::from(u32::MAX))?.and_then(|n| u32::try_from(n).ok());
            Ok(kept.filter(|n| *n > 0))
        };
        Ok(Self { days: kept("days")?, weeks: kept("weeks")?, months: kept("months")? })
    }
}

/// Checks the rules of a configuration that is being read.
///
/// # Errors
/// `VALIDATION_ERROR` whose message starts with the JSON path of a rule that cannot be read, or that has the
/// name of another one and says something else.
pub(super) fn check(config: &mut Config) -> Result<()> {
    CounterRules::read(&config.sections, &mut config.warnings)?;
    let retention = config.sections.get("retention").and_then(|retention| retention.get("counters"));
    for key in ["maxAge", "maxVersions"] {
        if retention.is_some_and(|counters| counters.get(key).is_some_and(|value| !value.is_null())) {
            let message =
                "has no effect: what was counted is kept for `days`, `weeks` and `months`".to_owned();
            config.warnings.push(Warning { path: below("retention.counters", key), message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sections: Json) -> Result<CounterRules> {
        let Json::Object(sections) = sections else { unreachable!() };
        let sections = sections.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        CounterRules::read(&sections, &mut Vec::new())
    }

    #[test]
    fn rules_of_both_sections_are_one_list() {
        let rule = json!({ "name": "a", "when": { "x": 1, "y": { "$in": [1, 2] } } });
        let again = json!({ "when": { "y": { "$in": [1, 2] }, "x": 1 }, "name": "a", "scope": "meta", "on": ["DELETE", "UPDATE", "CREATE"] });
        let other = json!({ "name": "b", "mode": "gauge" });
        let rules = read(
            json!({ "counterRules": { "rules": [rule] }, "analytics": { "counterRules": [again, other] } }),
        )
        .unwrap();
        let names: Vec<&str> = rules.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(rules.rules[1].is_gauge);
    }

    #[test]
    fn a_wrong_rule_is_named_by_its_path() {
        for (bad, path) in [
            (json!({ "name": "bad", "when": { "a": { "$where": "1" } } }), "counterRules.rules[1].when"),
            (json!({ "name": "bad", "on": ["TOUCH"] }), "counterRules.rules[1].on[0]"),
            (json!({ "name": "bad", "scope": "both" }), "counterRules.rules[1].scope"),
            (json!({ "name": "bad", "mode": "sum" }), "counterRules.rules[1].mode"),
            (json!({ "name": "bad", "countUnique": [7] }), "counterRules.rules[1].countUnique[0]"),
            (json!({ "when": {} }), "counterRules.rules[1].name"),
            (json!({ "name": "fine", "when": { "a": 2 } }), "counterRules.rules[1]: there is another rule"),
        ] {
            let error = read(json!({ "counterRules": { "rules": [{ "name": "fine" }, bad] } })).unwrap_err();
            assert!(error.message().starts_with(path), "{error}");
        }
    }

    #[test]
    fn a_definition_is_read_back() {
        let rules = read(json!({ "counterRules": { "rules": [
            { "name": "a.b", "on": ["DELETE"], "scope": "payload", "when": { "$or": [{ "x": 1 }, { "x.y": { "$regex": "^a" } }] }, "countUnique": ["z", "x.y"] },
            { "name": "never", "on": [] },
        ] } }))
        .unwrap();
        for rule in rules.rules.iter() {
            assert_eq!(CheckedRule::from_definition(&rule.definition()).unwrap(), **rule);
        }
        assert!(!rules.rules[1].is_on(CountedOp::Create), "an empty list is never");
    }

    #[test]
    fn periods_are_kept_where_they_are_asked_for() {
        let keep = |counters: Json| read(json!({ "retention": { "counters": counters } })).unwrap().keep;
        assert_eq!(
            keep(json!({ "days": 7, "weeks": 0 })),
            CounterRetention { days: Some(7), weeks: None, months: None }
        );
        assert_eq!(keep(json!({ "days": 7, "enabled": false })), CounterRetention::default());
        assert_eq!(read(json!({})).unwrap().keep, CounterRetention::default());
    }
}
