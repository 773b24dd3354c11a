//! What a scenario says, as a row of the table and as JSON.

use std::fmt;

use chronos_db::json::Map;
use chronos_db::{Json as Value, json};

use crate::targets::{Bound, Target};

/// One figure, against its ceiling and its target.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    scenario: String,
    unit: &'static str,
    ours: f64,
    ceiling: Option<f64>,
    target: Option<Target>,
    notes: Map,
}

impl Line {
    /// A figure that stands for itself.
    pub(crate) fn value(
        scenario: impl Into<String>,
        unit: &'static str,
        ours: f64,
        target: Option<Target>,
    ) -> Self {
        Self { scenario: scenario.into(), unit, ours, ceiling: None, target, notes: Map::new() }
    }

    /// A figure against its ceiling.
    pub(crate) fn against(
        scenario: impl Into<String>,
        unit: &'static str,
        ours: f64,
        ceiling: f64,
        target: Option<Target>,
    ) -> Self {
        Self { ceiling: Some(ceiling), ..Self::value(scenario, unit, ours, target) }
    }

    /// Adds what a reader should know beside the figures.
    pub(crate) fn note(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.notes.insert(key.to_owned(), value.into());
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.ceiling.map(|ceiling| if ceiling == 0.0 { f64::NAN } else { self.ours / ceiling })
    }

    fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        self.target.map(|target| match target.bound {
            Bound::RatioAtLeast(least) => ratio >= least,
            Bound::RatioAtMost(most) => ratio <= most,
            Bound::OursAtMost(most) => self.ours <= most,
            Bound::OursIs(this) => (self.ours - this).abs() < 1e-9,
        })
    }

    fn target_text(&self) -> String {
        match self.target.map(|target| target.bound) {
            None => "-".to_owned(),
            Some(Bound::RatioAtLeast(least)) => format!(">= {least}"),
            Some(Bound::RatioAtMost(most)) => format!("<= {most}"),
            Some(Bound::OursAtMost(most)) => format!("<= {most}"),
            Some(Bound::OursIs(this)) => format!("= {this}"),
        }
    }

    /// The line with the machine it was measured on.
    pub(crate) fn to_json(&self, machine: &Value) -> Value {
        let mut out = json!({
            "scenario": self.scenario, "ours": self.ours, "ceiling": self.ceiling, "ratio": self.ratio(), "target": self.target_text(),
            "met": self.is_met(), "unit": self.unit, "row": self.target.map(|target| target.row),
        });
        if let Value::Object(fields) = &mut out {
            fields.extend(self.notes.clone());
            fields.insert("machine".to_owned(), machine.clone());
        }
        out
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 || value == 0.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The heading of the table that the lines make.
pub(crate) fn heading() -> String {
    format!(
        "{:<34} {:>10} {:>10} {:>7} {:>8}   {:<16} {}",
        "scenario", "ours", "ceiling", "ratio", "target", "unit", "notes"
    )
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.is_met() {
            Some(false) => "!",
            _ => " ",
        };
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let ratio = self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let notes: Vec<String> = self.notes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (ours, ceiling, target) = (number(self.ours), optional(self.ceiling), self.target_text());
        write!(
            f,
            "{:<34} {ours:>10} {ceiling:>10} {ratio:>7} {target:>8} {mark} {:<16} {}",
            self.scenario,
            self.unit,
            notes.join(" ")
        )
    }
}
