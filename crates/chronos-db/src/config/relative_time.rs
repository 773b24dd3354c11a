//! `relativeTime`: a window that moves with the present, by ISO-8601 durations.

use jiff::Span;
use jiff::fmt::temporal::SpanParser;

use super::section::Section;
use crate::{Result, Timestamp};

/// Moments at which two durations are compared: the months before them have 28 and 31 days.
const SAMPLES: [&str; 2] = ["2023-03-01T00:00:00Z", "2023-08-01T00:00:00Z"];

/// A duration back from the present, by the calendar in UTC: a month before 31 March is the last of February.
#[derive(Clone, Copy, Debug)]
struct Ago(Span);

impl Ago {
    fn read(section: &mut Section<'_>, key: &'static str) -> Result<Option<Self>> {
        let Some(text) = section.text(key)? else { return Ok(None) };
        let span = SpanParser::new().parse_span(text).ok().filter(|span| !span.is_negative());
        let span = span.ok_or_else(|| {
            section.wrong(key, "is not an ISO-8601 duration such as PT1H, P1D, P2W, P1M or P1Y2M10DT2H30M")
        })?;
        Ok(Some(Self(span)))
    }

    /// None before the year -9999.
    fn before(self, now: Timestamp) -> Option<Timestamp> {
        Timestamp::of_civil(now.civil()?.checked_sub(self.0).ok()?)
    }
}

/// Which items a rule looks at, by when they were created.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RelativeTime {
    newer_than: Option<Ago>,
    older_than: Option<Ago>,
}

/// The moments between which items were created; both are within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// None: from the beginning.
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Timestamp,
}

impl RelativeTime {
    pub(super) fn read(rule: &mut Section<'_>) -> Result<Self> {
        let Some(mut section) = rule.section("relativeTime")? else { return Ok(Self::default()) };
        let newer_than = Ago::read(&mut section, "newerThan")?;
        let older_than = Ago::read(&mut section, "olderThan")?;
        let relative = Self { newer_than, older_than };
        let mut unknown = Vec::new();
        let path = section.path().to_owned();
        section.finish(&mut unknown);
        if let Some(unknown) = unknown.first() {
            // What is mistyped here would make the rule about everything.
            return Err(super::section::wrong(&unknown.path, &unknown.message));
        }
        let is_empty = |now: &str| {
            let window = Timestamp::parse(now).ok().map(|now| relative.window(now));
            window.is_some_and(|window| window.from.is_some_and(|from| from > window.to))
        };
        if SAMPLES.into_iter().all(is_empty) {
            let message = "no item is newer than `newerThan` and older than `olderThan`";
            return Err(super::section::wrong(&path, message));
        }
        Ok(relative)
    }

    /// The window at a moment.
    pub(crate) fn window(&self, now: Timestamp) -> Window {
        Window {
            from: self.newer_than.and_then(|ago| ago.before(now)),
            to: match self.older_than {
                None => now,
                Some(ago) => ago.before(now).unwrap_or(Timestamp::from_millis(i64::MIN)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, json};

    fn read(relative: Json) -> Result<RelativeTime> {
        let rule = json!({ "relativeTime": relative });
        RelativeTime::read(&mut Section::new("rule", &rule).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn durations_go_back_by_the_calendar() {
        for (duration, now, then) in [
            ("PT1H", "2024-03-15T17:58:00Z", "2024-03-15T16:58:00Z"),
            ("P2W", "2024-03-15T17:58:00Z", "2024-03-01T17:58:00Z"),
            ("P1M", "2024-03-31T10:00:00Z", "2024-02-29T10:00:00Z"),
            ("P1Y", "2024-02-29T00:00:00Z", "2023-02-28T00:00:00Z"),
            ("P1Y1M10DT2H30M", "2024-03-15T17:58:00Z", "2023-02-05T15:28:00Z"),
            ("PT1.5H", "2024-03-15T12:00:00Z", "2024-03-15T10:30:00Z"),
        ] {
            let window = read(json!({ "newerThan": duration })).unwrap().window(at(now));
            assert_eq!(window, Window { from: Some(at(then)), to: at(now) }, "{duration}");
            let window = read(json!({ "olderThan": duration })).unwrap().window(at(now));
            assert_eq!(window, Window { from: None, to: at(then) }, "{duration}");
        }
    }

    #[test]
    fn what_is_not_a_window_is_named() {
        for (relative, path) in [
            (json!({ "newerThan": "1 month" }), "rule.relativeTime.newerThan: "),
            (json!({ "newerThan": "-P1D" }), "rule.relativeTime.newerThan: "),
            (json!({ "olderThan": "P" }), "rule.relativeTime.olderThan: "),
            (json!({ "newerThen": "P1D" }), "rule.relativeTime.newerThen: "),
            (json!({ "newerThan": "P1D", "olderThan": "P1W" }), "rule.relativeTime: "),
        ] {
            let error = read(relative).unwrap_err();
            assert!(error.message().starts_with(path), "{error}");
        }
        assert!(read(json!({ "newerThan": "P1M", "olderThan": "P30D" })).is_ok(), "it depends on the month");
        let beyond = read(json!({ "newerThan": "P19000Y" })).unwrap().window(at("2024-03-15"));
        assert_eq!(beyond.from, None, "everything is newer");
    }
}
