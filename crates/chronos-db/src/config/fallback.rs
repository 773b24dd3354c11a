//! `fallback`: what becomes of writes that fail in a way that passes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::{Section, Unit, in_range, wrong};
use super::uri::resolve_path;
use super::{Config, identifiers};
use crate::Result;

const MAX_ATTEMPTS: u32 = 10;
const BASE_DELAY: Duration = Duration::from_secs(2);
const MAX_DELAY: Duration = Duration::from_secs(60);
const DEAD_LETTERS: &str = "chronos_fallback_dead";

/// Collections beside the dead letters.
pub(crate) const OPERATIONS: &str = "chronos_fallback_ops";
pub(crate) const COUNTER: &str = "chronos_fallback_counter";

/// What becomes of writes that fail in a way that passes: they wait in a queue and are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// After this many attempts from the queue an operation becomes a dead letter (default 10).
    pub max_attempts: u32,
    /// The longest wait before the first attempt from the queue (default 2 s); it doubles with each one.
    pub base_delay: Duration,
    /// The longest wait between two attempts (default 60 s).
    pub max_delay: Duration,
    /// The collection of what was given up (default `chronos_fallback_dead`).
    pub dead_letter_collection: String,
    /// The embedded store in which operations wait, so that writes go on while the document store is away.
    /// Default: none; they wait in the database that they are for.
    pub spool: Option<PathBuf>,
}

impl Default for Fallback {
    fn default() -> Self {
        Self {
            max_attempts: MAX_ATTEMPTS,
            base_delay: BASE_DELAY,
            max_delay: MAX_DELAY,
            dead_letter_collection: DEAD_LETTERS.to_owned(),
            spool: None,
        }
    }
}

impl Fallback {
    /// After this many attempts from the queue, at least one, an operation becomes a dead letter. Default 10.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronos_db::config::Fallback;
    ///
    /// let fallback = Fallback::default().max_attempts(5).delays(Duration::from_secs(1), Duration::from_secs(30));
    /// assert_eq!((fallback.max_attempts, fallback.base_delay), (5, Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest wait before the first attempt, which doubles with each one, and the longest of all.
    /// Default 2 s and 60 s.
    #[must_use]
    pub const fn delays(mut self, base: Duration, longest: Duration) -> Self {
        self.base_delay = base;
        self.max_delay = longest;
        self
    }

    /// The collection of what was given up. Default `chronos_fallback_dead`.
    #[must_use]
    pub fn dead_letter_collection(mut self, name: impl Into<String>) -> Self {
        self.dead_letter_collection = name.into();
        self
    }

    /// The embedded store in which operations wait, a folder or a `.db` file, on a disk that outlives the
    /// process. Default: none.
    ///
    /// ```
    /// use chronos_db::config::{Config, Fallback};
    ///
    /// let config = Config::embedded_builder("/var/lib/app".as_ref())
    ///     .fallback(Fallback::default().spool("/var/lib/app/spool"))
    ///     .build()?;
    /// assert!(config.fallback.unwrap().spool.is_some());
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    #[must_use]
    pub fn spool(mut self, path: impl Into<PathBuf>) -> Self {
        self.spool = Some(path.into());
        self
    }
}

/// Reads the section.
pub(super) fn read(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    let Some(mut section) = root.section("fallback")? else { return Ok(()) };
    let mut fallback = Fallback::default();
    let enabled = section.enabled()?;
    let most = u64::from(u32::MAX);
    let (attempts, retries) = (section.positive("maxAttempts")?, section.positive("maxRetries")?);
    if let Some(attempts) = section.agreeing(("maxAttempts", attempts), ("maxRetries", retries))? {
        fallback.max_attempts = attempts;
    }
    let delay = section.duration("baseDelayMs", Unit::Milliseconds, 0, most)?;
    let other = section.duration("retryDelayMs", Unit::Milliseconds, 0, most)?;
    if let Some(delay) = section.agreeing(("baseDelayMs", delay), ("retryDelayMs", other))? {
        fallback.base_delay = delay;
    }
    if let Some(delay) = section.duration("maxDelayMs", Unit::Milliseconds, 0, most)? {
        fallback.max_delay = delay;
    }
    if let Some(name) = section.text("deadLetterCollection")? {
        fallback.dead_letter_collection = name.to_owned();
    }
    fallback.spool = section.text("spoolPath")?.map(PathBuf::from);
    section.finish(&mut config.warnings);
    fallback.check(base)?;
    config.fallback = enabled.then_some(fallback);
    Ok(())
}

impl Fallback {
    /// Checks the values and makes the path of the spool absolute; errors name the paths that they have in a
    /// file.
    pub(super) fn check(&mut self, base: &Path) -> Result<()> {
        let most = u64::from(u32::MAX);
        in_range("fallback.maxAttempts", Some(self.max_attempts.into()), 1, most)?;
        in_range("fallback.baseDelayMs", Unit::Milliseconds.count(self.base_delay), 0, most)?;
        in_range("fallback.maxDelayMs", Unit::Milliseconds.count(self.max_delay), 0, most)?;
        let path = "fallback.deadLetterCollection";
        let name = identifiers::name(path, "collection", &self.dead_letter_collection)?;
        if [OPERATIONS, COUNTER].contains(&name.as_str()) {
            return Err(wrong(path, format!("`{name}` holds the operations that wait")));
        }
        if let Some(spool) = &mut self.spool {
            *spool = resolve_path(&*spool, base).map_err(|message| wrong("fallback.spoolPath", message))?;
        }
        Ok(())
    }
}
