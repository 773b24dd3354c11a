//! `rollup`: how versions that leave the index are rolled up.

use super::section::Section;
use super::{Config, ManifestPeriod, Rollup};
use crate::Result;

impl Default for Rollup {
    fn default() -> Self {
        Self { enabled: true, auto_schedule: true, period: ManifestPeriod::default() }
    }
}

impl Rollup {
    /// Whether versions may leave the index. Default: yes.
    ///
    /// ```
    /// use chronos_db::config::{ManifestPeriod, Rollup};
    ///
    /// let rollup = Rollup::default().period(ManifestPeriod::Monthly).auto_schedule(false);
    /// assert!(rollup.enabled && !rollup.auto_schedule);
    /// ```
    #[must_use]
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Whether workers do it by themselves. Default: yes.
    #[must_use]
    pub const fn auto_schedule(mut self, scheduled: bool) -> Self {
        self.auto_schedule = scheduled;
        self
    }

    /// What one manifest of the first level covers. Default: a day.
    #[must_use]
    pub const fn period(mut self, period: ManifestPeriod) -> Self {
        self.period = period;
        self
    }
}

impl ManifestPeriod {
    /// Returns its name in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

pub(super) fn read(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("rollup")? else { return Ok(()) };
    let (enabled, auto_schedule) = (section.enabled()?, section.flag("autoSchedule")?.unwrap_or(true));
    let period = match section.text("manifestPeriod")? {
        None | Some("daily") => ManifestPeriod::Daily,
        Some("weekly") => ManifestPeriod::Weekly,
        Some("monthly") => ManifestPeriod::Monthly,
        Some(other) => {
            return Err(section
                .wrong("manifestPeriod", format!("`{other}` is none of `daily`, `weekly` and `monthly`")));
        }
    };
    if !enabled && config.retention.is_bounded() {
        let message = "is off, so every version stays in the index, whatever `retention.ver` says";
        config.warnings.push(section.warning("enabled", message));
    }
    config.rollup = Rollup { enabled, auto_schedule, period };
    section.finish(&mut config.warnings);
    Ok(())
}
