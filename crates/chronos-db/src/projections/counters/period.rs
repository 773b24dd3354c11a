//! Days, weeks and months in which changes are counted.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan as _;
use jiff::civil::Date;

use crate::config::CounterRetention;
use crate::{Error, Result, Timestamp};

/// A span of the calendar, in UTC.
///
/// ```
/// use chronos_db::counters::Period;
/// assert_eq!("week".parse::<Period>()?, Period::Week);
/// # Ok::<(), chronos_db::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

impl Period {
    pub(super) const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The option of `retention.counters` that keeps it.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::Day => "days",
            Self::Week => "weeks",
            Self::Month => "months",
        }
    }

    /// How many of them before the present one are kept; none if none are.
    pub(super) const fn kept(self, keep: &CounterRetention) -> Option<u32> {
        match self {
            Self::Day => keep.days,
            Self::Week => keep.weeks,
            Self::Month => keep.months,
        }
    }

    fn first_day(self, day: Date) -> Option<Date> {
        match self {
            Self::Day => Some(day),
            Self::Week => day.checked_sub(i64::from(day.weekday().to_monday_zero_offset()).days()).ok(),
            Self::Month => Some(day.first_of_month()),
        }
    }

    /// The beginning of the period that a moment is in; none beyond the year 9999.
    pub(super) fn start(self, at: Timestamp) -> Option<Timestamp> {
        self.first_day(at.civil()?.date()).map(midnight)
    }

    /// The beginning of the oldest period that is kept. Everything is if the calendar does not go back so
    /// far.
    pub(super) fn cutoff(self, now: Timestamp, kept: u32) -> Timestamp {
        let back = i64::from(kept);
        let span = match self {
            Self::Day => jiff::Span::new().try_days(back),
            Self::Week => jiff::Span::new().try_weeks(back),
            Self::Month => jiff::Span::new().try_months(back),
        };
        let oldest = now
            .civil()
            .and_then(|now| self.first_day(now.date()))
            .zip(span.ok())
            .and_then(|(present, span)| present.checked_sub(span).ok());
        oldest.map_or(Timestamp::from_millis(i64::MIN), midnight)
    }
}

fn midnight(day: Date) -> Timestamp {
    let since = day
        .to_datetime(jiff::civil::Time::midnight())
        .duration_since(jiff::civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    Timestamp::from_millis(since.as_secs().saturating_mul(1_000))
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|period| period.name() == text).ok_or_else(|| {
            Error::validation(format!(
                "`{}` is not a period; there are day, week and month",
                text.escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        for (moment, day, week, month) in [
            ("2024-03-03T23:59:59.999Z", "2024-03-03", "2024-02-26", "2024-03-01"),
            ("2024-03-04T00:00:00Z", "2024-03-04", "2024-03-04", "2024-03-01"),
            ("1969-12-31T23:00:00Z", "1969-12-31", "1969-12-29", "1969-12-01"),
            ("2020-01-01T01:30:00+02:00", "2019-12-31", "2019-12-30", "2019-12-01"),
        ] {
            let starts = Period::ALL.map(|period| period.start(at(moment)).unwrap());
            assert_eq!(starts, [at(day), at(week), at(month)], "{moment}");
        }
    }

    #[test]
    fn so_many_periods_before_the_present_one_are_kept() {
        let now = at("2024-03-31T12:00:00Z");
        assert_eq!(Period::Day.cutoff(now, 7), at("2024-03-24"));
        assert_eq!(Period::Week.cutoff(now, 2), at("2024-03-11"));
        assert_eq!(Period::Month.cutoff(now, 2), at("2024-01-01"));
        assert!(Period::Day.cutoff(now, u32::MAX) < at("1000-01-01"));
    }
}
