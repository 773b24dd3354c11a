//! `writeOptimization`: how writes reach object storage, counters and shadows.

use std::time::Duration;

use super::section::{Section, Unit, in_range};
use super::{Config, DevShadow};
use crate::Result;

/// Versions that are stored without waiting for the end of the window, if nothing else is said.
const BATCH_SIZE: u32 = 64;
/// The window of `batchS3` and `batchSize`, if nothing else is said.
const BATCH_WINDOW: Duration = Duration::from_millis(50);
/// A version may wait longer if it fails, so this is for those that want few, large rounds.
const MAX_WINDOW_MILLIS: u64 = 60 * 1_000;
const MAX_DEBOUNCE_MILLIS: u64 = 24 * 3_600 * 1_000;
const MAX_BATCH: u64 = 1_000;
/// Payloads above this many bytes get no shadow, where shadows may be skipped.
const LARGE_SHADOW: usize = 100 * 1024;

/// How writes reach object storage, counters and shadows. The default is: at once, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptimization {
    /// How long committed versions are gathered before they are stored together (default: not at all). A
    /// caller who waits until its version is stored ends the wait of all.
    pub batch_window: Duration,
    /// As soon as this many versions wait, they are stored, and this many are noted as stored in one batch
    /// (default 64).
    pub batch_size: u32,
    /// Whether payloads are compressed (gzip) where that makes them smaller (default: no). Readers read both,
    /// whatever this says; sizes and checksums are always those of the JSON.
    pub compression: bool,
    /// Workers follow the log for the counters of a collection no more often than this (default: each round).
    /// Reading counters is exact all the same.
    pub counters_every: Duration,
    /// Whether payloads above 100 KiB get no shadow in the head (default: no).
    pub skips_large_shadows: bool,
}

impl Default for WriteOptimization {
    fn default() -> Self {
        Self {
            batch_window: Duration::ZERO,
            batch_size: BATCH_SIZE,
            compression: false,
            counters_every: Duration::ZERO,
            skips_large_shadows: false,
        }
    }
}

impl WriteOptimization {
    /// Committed versions are gathered for `window`, at most a minute, or until `size` of them wait, at most
    /// 1,000, before they are stored together. Default: each is stored at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use chronos_db::config::{Config, WriteOptimization};
    ///
    /// let optimization = WriteOptimization::default().batches(Duration::from_millis(50), 100).compression(true);
    /// let config = Config::embedded_builder("/var/lib/app".as_ref()).write_optimization(optimization).build()?;
    /// assert_eq!(config.write_optimization.batch_size, 100);
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    #[must_use]
    pub const fn batches(mut self, window: Duration, size: u32) -> Self {
        self.batch_window = window;
        self.batch_size = size;
        self
    }

    /// Whether payloads are compressed (gzip) where that makes them smaller. Default: no.
    #[must_use]
    pub const fn compression(mut self, compress: bool) -> Self {
        self.compression = compress;
        self
    }

    /// Workers follow the log for the counters of a collection no more often than this, at most once a day.
    /// Default: each round.
    #[must_use]
    pub const fn counters_every(mut self, interval: Duration) -> Self {
        self.counters_every = interval;
        self
    }

    /// Whether payloads above 100 KiB get no shadow in the head. Default: no.
    #[must_use]
    pub const fn skip_large_shadows(mut self, skip: bool) -> Self {
        self.skips_large_shadows = skip;
        self
    }

    /// Checks settings that were given in Rust; errors name the paths that they have in a file.
    pub(super) fn check(&self) -> Result<()> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).ok();
        in_range("writeOptimization.batchWindowMs", millis(self.batch_window), 0, MAX_WINDOW_MILLIS)?;
        in_range("writeOptimization.batchSize", Some(self.batch_size.into()), 1, MAX_BATCH)?;
        in_range(
            "writeOptimization.debounceCountersMs",
            millis(self.counters_every),
            0,
            MAX_DEBOUNCE_MILLIS,
        )?;
        Ok(())
    }
}

impl Config {
    /// The shadow that heads get.
    pub(crate) fn shadow(&self) -> Option<DevShadow> {
        let most = self.write_optimization.skips_large_shadows.then_some(LARGE_SHADOW);
        self.dev_shadow
            .map(|shadow| DevShadow { max_bytes: shadow.max_bytes.into_iter().chain(most).min(), ..shadow })
    }
}

/// Reads the section. The two sets of names are those of versions 1 and 2.
pub(super) fn read(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("writeOptimization")? else { return Ok(()) };
    let mut read = WriteOptimization::default();
    let size = section.number("batchSize", 1, MAX_BATCH)?.and_then(|size| u32::try_from(size).ok());
    let window = section.duration("batchWindowMs", Unit::Milliseconds, 0, MAX_WINDOW_MILLIS)?;
    let debounce = section.duration("debounceMs", Unit::Milliseconds, 0, MAX_WINDOW_MILLIS)?;
    let window = section.agreeing(("batchWindowMs", window), ("debounceMs", debounce))?;
    let batches = section.flag("batchS3")?.unwrap_or(size.is_some() || window.is_some());
    if batches {
        read = read.batches(window.unwrap_or(BATCH_WINDOW), size.unwrap_or(BATCH_SIZE));
    }
    read.compression = section.flag("compressionEnabled")?.unwrap_or(false);
    let debounce = section.duration("debounceCountersMs", Unit::Milliseconds, 0, MAX_DEBOUNCE_MILLIS)?;
    read.counters_every = debounce.unwrap_or_default();
    read.skips_large_shadows = section.flag("allowShadowSkip")?.unwrap_or(false);
    if section.enabled()? {
        config.write_optimization = read;
    }
    section.finish(&mut config.warnings);
    Ok(())
}
