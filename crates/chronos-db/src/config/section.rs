//! Reading JSON objects so that every error names its path and no key goes unnoticed.

use super::Warning;
use crate::json::Map;
use crate::{Error, Json, Result};

/// A validation error whose message starts with the JSON path.
pub(super) fn wrong(path: &str, message: impl std::fmt::Display) -> Error {
    Error::validation(format!("{path}: {message}"))
}

/// The path of `key` below `parent`; keys that would make it ambiguous are quoted.
pub(super) fn below(parent: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'));
    match (parent.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{parent}.{key}"),
        (_, false) => format!("{parent}[{key:?}]"),
    }
}

/// An object being read. What was never asked for is reported by [`Section::finish`].
pub(super) struct Section<'a> {
    path: String,
    map: &'a Map,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: String, value: &'a Json) -> Result<Self> {
        match value {
            Json::Object(map) => Ok(Self { path, map, known: Vec::new() }),
            other => Err(unexpected(if path.is_empty() { "$" } else { &path }, "an object", other)),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn at(&self, key: &str) -> String {
        below(&self.path, key)
    }

    pub(super) fn wrong(&self, key: &str, message: impl std::fmt::Display) -> Error {
        wrong(&self.at(key), message)
    }

    pub(super) fn warning(&self, key: &str, message: impl Into<String>) -> Warning {
        Warning { path: self.at(key), message: message.into() }
    }

    /// The value of `key`; null is absent.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Json> {
        self.known.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Accepts keys without reading them.
    pub(super) fn accept(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// A text; an empty one is absent.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(other) => Err(unexpected(&self.at(key), "a string", other)),
        }
    }

    pub(super) fn required_text(&mut self, key: &'static str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing or empty"))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(unexpected(&self.at(key), "true or false", other)),
        }
    }

    /// A whole number between `least` and `most`.
    pub(super) fn number(&mut self, key: &'static str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Json::Number(number) = value else {
            return Err(unexpected(&self.at(key), "a number", value));
        };
        match number.as_u64() {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.wrong(key, format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// A positive number of 32 bits.
    pub(super) fn positive(&mut self, key: &'static str) -> Result<Option<u32>> {
        let number = self.number(key, 1, u64::from(u32::MAX))?;
        Ok(number.and_then(|n| u32::try_from(n).ok()))
    }

    /// Two names of one setting; if both are given they must say the same.
    pub(super) fn agreeing<T: PartialEq>(
        &self,
        (name, value): (&str, Option<T>),
        (synonym, other): (&str, Option<T>),
    ) -> Result<Option<T>> {
        match (value, other) {
            (Some(a), Some(b)) if a != b => {
                Err(self.wrong(synonym, format!("is another name of `{name}` and says something else")))
            }
            (value, other) => Ok(value.or(other)),
        }
    }

    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Self>> {
        self.get(key).map(|value| Self::new(self.at(key), value)).transpose()
    }

    /// The elements of a list with their paths; an absent list is empty.
    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<(String, &'a Json)>> {
        let path = self.at(key);
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Json::Array(items)) => {
                Ok(items.iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect())
            }
            Some(other) => Err(unexpected(&path, "a list", other)),
        }
    }

    pub(super) fn sections(&mut self, key: &'static str) -> Result<Vec<Self>> {
        self.list(key)?.into_iter().map(|(path, item)| Self::new(path, item)).collect()
    }

    /// A list of non-empty texts with their paths.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<(String, &'a str)>> {
        self.list(key)?
            .into_iter()
            .map(|(path, item)| text_of(&path, item).map(|text| (path, text)))
            .collect()
    }

    /// The members of an object whose keys are the user's.
    pub(super) fn members(&mut self, key: &'static str) -> Result<Vec<(&'a str, Self)>> {
        let Some(section) = self.section(key)? else { return Ok(Vec::new()) };
        section
            .map
            .iter()
            .map(|(name, value)| Ok((name.as_str(), Self::new(below(&section.path, name), value)?)))
            .collect()
    }

    /// `enabled`, true where it is left out.
    pub(super) fn enabled(&mut self) -> Result<bool> {
        Ok(self.flag("enabled")?.unwrap_or(true))
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self, warnings: &mut Vec<Warning>) {
        for key in self.map.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let hint = closest(key, &self.known)
                .map(|known| format!("; did you mean `{known}`?"))
                .unwrap_or_default();
            warnings.push(Warning {
                path: self.at(key),
                message: format!("is not known here and has no effect{hint}"),
            });
        }
    }
}

/// The text of a list element.
pub(super) fn text_of<'a>(path: &str, value: &'a Json) -> Result<&'a str> {
    match value {
        Json::String(text) if text.trim().is_empty() => Err(wrong(path, "is empty")),
        Json::String(text) => Ok(text.trim()),
        other => Err(unexpected(path, "a string", other)),
    }
}

/// Says what was found by its type alone: the value may be a secret.
fn unexpected(path: &str, expected: &str, found: &Json) -> Error {
    let found = match found {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    };
    wrong(path, format!("expected {expected}, found {found}"))
}

/// The candidate a mistyped word most likely meant.
pub(crate) fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let word = word.to_lowercase();
    let near = |candidate: &&'c str| {
        let lower = candidate.to_lowercase();
        let distance = distance(&word, &lower);
        (distance <= (lower.chars().count() / 2).min(3)).then_some((distance, *candidate))
    };
    candidates.iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// How many insertions, deletions and replacements turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_found_and_a_distant_one_is_not() {
        let known = ["bucket", "dbConnRef", "dbName", "enabled"];
        assert_eq!(closest("bucktet", &known), Some("bucket"));
        assert_eq!(closest("DBNAME", &known), Some("dbName"));
        assert_eq!(closest("dbConectionRef", &known), None);
        assert_eq!(closest("dbConRef", &known), Some("dbConnRef"));
        assert_eq!(closest("x", &known), None);
    }

    #[test]
    fn paths_quote_keys_that_would_be_ambiguous() {
        assert_eq!(below("a", "b-1"), "a.b-1");
        assert_eq!(below("", "b"), "b");
        assert_eq!(below("a", "b.c"), "a[\"b.c\"]");
    }
}
