//! The handle of analytics rules.

use std::sync::Arc;

use crate::chronos::Chronos;
use crate::config::{CrossTenant, TimeBased};
use crate::{Error, Result};

/// The analytics rules of a configuration, as [`Chronos::analytics`] returns them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Analytics {
    pub(super) chronos: Chronos,
}

impl Chronos {
    /// Returns the analytics rules of the configuration: to run them, and to read their results; see
    /// [`analytics`](crate::analytics). No I/O.
    #[must_use]
    pub fn analytics(&self) -> Analytics {
        Analytics { chronos: self.clone() }
    }
}

/// A rule of either kind.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    TimeBased(Arc<TimeBased>),
    CrossTenant(Arc<CrossTenant>),
}

impl Rule {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::TimeBased(timed) => &timed.rule.name,
            Self::CrossTenant(cross) => &cross.rule.name,
        }
    }
}

impl Analytics {
    /// All rules, in the order of the configuration.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let rules = &self.chronos.config().analytics;
        let across = rules.cross_tenant.iter().cloned().map(Rule::CrossTenant);
        rules.time_based.iter().cloned().map(Rule::TimeBased).chain(across).collect()
    }

    /// The rule of that name.
    ///
    /// # Errors
    /// `VALIDATION_ERROR`, with the names there are, if there is none.
    pub(super) fn rule(&self, name: &str) -> Result<Rule> {
        let rules = self.rules();
        rules.iter().find(|rule| rule.name() == name).cloned().ok_or_else(|| {
            let names: Vec<String> = rules.iter().map(|rule| format!("`{}`", rule.name())).collect();
            let there = if names.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            };
            Error::validation(format!("there is no analytics rule `{}`; {there}", name.escape_debug()))
        })
    }
}
