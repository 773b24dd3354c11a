//! [`Section`] reads a JSON object so that every error names its path and unknown keys are reported. It is public
//! for crates that have a section of their own in the configuration file, as chronow has.

use std::fmt;
use std::time::Duration;

use super::Warning;
use crate::json::Map;
use crate::{Error, Json, Result};

/// A validation error whose message starts with the JSON path.
pub(super) fn wrong(path: &str, message: impl fmt::Display) -> Error {
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

/// Checks that a number is given, and from `least` to `most`.
///
/// # Errors
/// `VALIDATION_ERROR` that starts with the JSON path and says the bounds.
pub fn in_range(path: &str, number: Option<u64>, least: u64, most: u64) -> Result<u64> {
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| wrong(path, format!("must be a whole number from {least} to {most}")))
}

/// What a time in a configuration is counted in; its key ends with it: `timeoutMs`, `ttlHours`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Hours.
    Hours,
    /// Days of 24 hours.
    Days,
}

impl Unit {
    const fn millis(self) -> u64 {
        match self {
            Self::Milliseconds => 1,
            Self::Seconds => 1_000,
            Self::Hours => 3_600_000,
            Self::Days => 86_400_000,
        }
    }

    /// This many of this unit, or the longest time there is.
    #[must_use]
    pub const fn times(self, number: u64) -> Duration {
        match self {
            Self::Milliseconds => Duration::from_millis(number),
            unit => Duration::from_secs(number.saturating_mul(unit.millis() / 1_000)),
        }
    }

    /// How many of this unit a time is; none if it is not a whole number of them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronos_db::config::section::Unit;
    ///
    /// assert_eq!(Unit::Hours.count(Duration::from_secs(7_200)), Some(2));
    /// assert_eq!(Unit::Hours.count(Duration::from_secs(7_201)), None);
    /// ```
    #[must_use]
    pub fn count(self, time: Duration) -> Option<u64> {
        let unit = u128::from(self.millis()) * 1_000_000;
        let whole = time.as_nanos().is_multiple_of(unit);
        whole.then(|| u64::try_from(time.as_nanos() / unit).ok())?
    }
}

/// An object of a configuration that is being read. Every error starts with the JSON path of the invalid value
/// and never shows the value, which may be a secret. [`finish`](Self::finish) reports the keys that were never
/// read. A `null` is an absent value, and so is an empty text where a text is read.
///
/// ```
/// use std::time::Duration;
/// use chronos_db::config::section::{Section, Unit};
///
/// let written = chronos_db::json!({"port": 80, "waitMs": 250, "hots": "a"});
/// let mut section = Section::new("server", &written)?;
/// assert_eq!(section.number("port", 1, 65_535)?, Some(80));
/// assert_eq!(section.duration("waitMs", Unit::Milliseconds, 0, 1_000)?, Some(Duration::from_millis(250)));
/// assert_eq!(section.text("host")?, None);
/// let mut warnings = Vec::new();
/// section.finish(&mut warnings);
/// assert_eq!(warnings[0].to_string(), "server.hots: is not known here and has no effect; did you mean `host`?");
///
/// let mut section = Section::new("server", &written)?;
/// let error = section.text("port").unwrap_err();
/// assert_eq!(error.message(), "server.port: expected a string, found a number");
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub struct Section<'a> {
    path: String,
    map: &'a Map,
    known: Vec<&'static str>,
}

impl fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_struct("Section").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> Section<'a> {
    /// The object that stands at `path`; an empty path is the root.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is not an object.
    pub fn new(path: impl Into<String>, value: &'a Json) -> Result<Self> {
        let path = path.into();
        match value {
            Json::Object(map) => Ok(Self { path, map, known: Vec::new() }),
            other => Err(unexpected(if path.is_empty() { "$" } else { &path }, "an object", other)),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where `key` stands in it.
    #[must_use]
    pub fn at(&self, key: &str) -> String {
        below(&self.path, key)
    }

    /// A `VALIDATION_ERROR` about the value of `key`.
    #[must_use]
    pub fn wrong(&self, key: &str, message: impl fmt::Display) -> Error {
        wrong(&self.at(key), message)
    }

    /// Something about the value of `key` that deserves a look.
    pub(super) fn warning(&self, key: &str, message: impl Into<String>) -> Warning {
        Warning { path: self.at(key), message: message.into() }
    }

    /// The value of `key`, whatever it is; null is absent.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Json> {
        self.known.push(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Accepts keys without reading them.
    pub fn accept(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// A text without spaces around it; an empty one is absent.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is something else.
    pub fn text(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        let text = self.verbatim(key)?.map(str::trim);
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// A text with the spaces around it, which may belong to a password; an empty one is absent.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn verbatim(&mut self, key: &'static str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(unexpected(&self.at(key), "a string", other)),
        }
    }

    /// A [`text`](Self::text) that must be there.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` also if it is absent.
    pub fn required_text(&mut self, key: &'static str) -> Result<&'a str> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing or empty"))
    }

    /// True or false.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is something else.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(unexpected(&self.at(key), "true or false", other)),
        }
    }

    /// A whole number between `least` and `most`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is something else.
    pub fn number(&mut self, key: &'static str, least: u64, most: u64) -> Result<Option<u64>> {
        self.get(key).map(|value| whole(&self.at(key), value, least, most)).transpose()
    }

    /// A positive number of 32 bits.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn positive(&mut self, key: &'static str) -> Result<Option<u32>> {
        let number = self.number(key, 1, u64::from(u32::MAX))?;
        Ok(number.and_then(|n| u32::try_from(n).ok()))
    }

    /// A time of between `least` and `most` whole `unit`s.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn duration(
        &mut self,
        key: &'static str,
        unit: Unit,
        least: u64,
        most: u64,
    ) -> Result<Option<Duration>> {
        Ok(self.number(key, least, most)?.map(|number| unit.times(number)))
    }

    /// A list of times, each of between `least` and `most` whole `unit`s.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is not a list, or an element of it is something else.
    pub fn durations(
        &mut self,
        key: &'static str,
        unit: Unit,
        least: u64,
        most: u64,
    ) -> Result<Option<Vec<Duration>>> {
        if self.get(key).is_none() {
            return Ok(None);
        }
        let time = |(path, value): (String, _)| Ok(unit.times(whole(&path, value, least, most)?));
        self.list(key)?.into_iter().map(time).collect::<Result<_>>().map(Some)
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

    /// An object in it.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is something else.
    pub fn section(&mut self, key: &'static str) -> Result<Option<Self>> {
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

    /// A list of non-empty texts with their paths; an absent list is empty.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is not a list, or an element of it is something else.
    pub fn texts(&mut self, key: &'static str) -> Result<Vec<(String, &'a str)>> {
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

    /// Adds a warning for every key that was never asked for, with the one it resembles.
    pub fn finish(self, warnings: &mut Vec<Warning>) {
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

/// A whole number between `least` and `most`.
fn whole(path: &str, value: &Json, least: u64, most: u64) -> Result<u64> {
    match value {
        Json::Number(number) => in_range(path, number.as_u64(), least, most),
        other => Err(unexpected(path, "a number", other)),
    }
}

/// The text of a list element.
fn text_of<'a>(path: &str, value: &'a Json) -> Result<&'a str> {
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
