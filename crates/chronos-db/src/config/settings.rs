//! Everything but connections and databases: the same in every shape, and in Rust.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::section::{Section, Unit, in_range};
use super::uri::resolve_path;
use super::{AnalyticsRules, Config, DevShadow, HashAlgorithm, Transactions, UpdateMode, Warning};
use crate::route::key::KeyTemplate;
use crate::{Json, Result};

/// Rows also carry indexed values and, with a shadow, heads carry the payload: MongoDB's 16 MB must not be
/// met by the payload alone.
const MAX_INLINE_BYTES: u64 = 12 * 1024 * 1024;

/// How long objects without a version stay that were found, unless `retention.objects.graceDays` says otherwise.
const OBJECTS_GRACE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A day: no call should take longer.
const MAX_TIMEOUT_MILLIS: u64 = 24 * 3_600 * 1_000;

/// Reads everything but connections and databases.
pub(super) fn read(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    root.accept(&["$schema"]);
    local_storage(root, config, base)?;
    routing(root, config)?;
    retention(root, config)?;
    super::rollup::read(root, config)?;
    super::collections::read(root, config)?;
    dev_shadow(root, config)?;
    super::fallback::read(root, config, base)?;
    transactions(root, config)?;
    super::write_optimization::read(root, config)?;
    for (key, setting) in
        [("logicalDelete", &mut config.logical_delete), ("versioning", &mut config.versioning)]
    {
        if let Some(mut section) = root.section(key)? {
            *setting = section.enabled()?;
            section.finish(&mut config.warnings);
        }
    }
    config.update_mode = match root.text("updateMode")? {
        None | Some("merge") => UpdateMode::Merge,
        Some("replace") => UpdateMode::Replace,
        Some(other) => {
            return Err(root.wrong("updateMode", format!("`{other}` is neither `merge` nor `replace`")));
        }
    };
    if let Some(bytes) = root.number("inlineMaxBytes", 0, MAX_INLINE_BYTES)? {
        // The bound above fits every usize.
        config.inline_max_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config.timeout = root.duration("timeoutMs", Unit::Milliseconds, 1, MAX_TIMEOUT_MILLIS)?;
    if let Some(allowed) = root.flag("hardDeleteEnabled")? {
        config.set_hard_delete(allowed);
    }
    sections(root, config)
}

/// Checks settings that were given in Rust; errors name the paths that they have in a file.
pub(super) fn check(config: &mut Config) -> Result<()> {
    let most = u64::from(u32::MAX);
    let bytes = |bytes: usize| u64::try_from(bytes).ok();
    in_range("inlineMaxBytes", bytes(config.inline_max_bytes), 0, MAX_INLINE_BYTES)?;
    if let Some(timeout) = config.timeout {
        in_range("timeoutMs", u64::try_from(timeout.as_millis()).ok(), 1, MAX_TIMEOUT_MILLIS)?;
    }
    if let Some(age) = config.retention.max_age {
        in_range("retention.ver.days", Unit::Days.count(age), 1, most)?;
    }
    if let Some(versions) = config.retention.max_per_item {
        in_range("retention.ver.maxPerItem", Some(versions.into()), 1, most)?;
    }
    if let Some(grace) = config.retention.objects {
        in_range("retention.objects.graceDays", Unit::Days.count(grace), 1, most)?;
    }
    if let Some(shadow) = config.dev_shadow {
        in_range("devShadow.ttlHours", Unit::Hours.count(shadow.ttl), 1, most)?;
        if let Some(max_bytes) = shadow.max_bytes {
            in_range("devShadow.maxBytesPerDoc", bytes(max_bytes), 1, most)?;
        }
    }
    if let Some(fallback) = &mut config.fallback {
        fallback.check(Path::new(""))?;
    }
    config.write_optimization.check()?;
    let template = config.routing.choose_key.clone();
    config.note_unknown_parts("routing.chooseKey", &template);
    Ok(())
}

impl Config {
    pub(super) fn set_hard_delete(&mut self, allowed: bool) {
        self.sections.insert("hardDeleteEnabled".to_owned(), Json::Bool(allowed));
    }

    fn note_unknown_parts(&mut self, path: &str, template: &str) {
        let template = KeyTemplate::parse(template);
        self.warnings.extend(template.unknown().map(|part| Warning {
            path: path.to_owned(),
            message: format!("the part `{part}` is not known and is skipped"),
        }));
    }
}

fn local_storage(root: &mut Section<'_>, config: &mut Config, base: &Path) -> Result<()> {
    let Some(mut section) = root.section("localStorage")? else { return Ok(()) };
    let path = section.text("basePath")?;
    if section.enabled()? {
        let path = path.ok_or_else(|| section.wrong("basePath", "is missing or empty"))?;
        config.local_storage =
            Some(resolve_path(path, base).map_err(|message| section.wrong("basePath", message))?);
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn routing(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("routing")? else { return Ok(()) };
    config.routing.hash = match section.text("hashAlgo")? {
        None | Some("rendezvous") => HashAlgorithm::Rendezvous,
        Some("jump") => HashAlgorithm::Jump,
        Some(other) => {
            return Err(section.wrong("hashAlgo", format!("`{other}` is neither `rendezvous` nor `jump`")));
        }
    };
    if let Some(template) = section.text("chooseKey")? {
        config.note_unknown_parts(&section.at("chooseKey"), template);
        config.routing.choose_key = template.to_owned();
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn retention(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("retention")? else { return Ok(()) };
    if let Some(written) = root.get("retention") {
        config.sections.insert("retention".to_owned(), written.clone());
    }
    let on = section.enabled()?;
    if let Some(mut versions) = section.section("ver")? {
        let max_age = versions.duration("days", Unit::Days, 1, u64::from(u32::MAX))?;
        let (new, old) = (versions.positive("maxPerItem")?, versions.positive("maxVersions")?);
        let most = versions.agreeing(("maxPerItem", new), ("maxVersions", old))?;
        if versions.get("maxAge").is_some() {
            config.warnings.push(versions.warning("maxAge", "has no defined unit and no effect; use `days`"));
        }
        if versions.enabled()? && on {
            config.retention.max_age = max_age;
            config.retention.max_per_item = most;
        }
        versions.finish(&mut config.warnings);
    }
    if let Some(mut counters) = section.section("counters")? {
        for key in ["days", "weeks", "months", "maxAge", "maxVersions"] {
            counters.number(key, 0, u64::from(u32::MAX))?;
        }
        counters.enabled()?;
        counters.finish(&mut config.warnings);
    }
    if let Some(mut objects) = section.section("objects")? {
        let grace = objects.duration("graceDays", Unit::Days, 1, u64::from(u32::MAX))?;
        if objects.enabled()? && on {
            config.retention.objects = Some(grace.unwrap_or(OBJECTS_GRACE));
        }
        objects.finish(&mut config.warnings);
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn dev_shadow(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("devShadow")? else { return Ok(()) };
    let ttl = section.duration("ttlHours", Unit::Hours, 1, u64::from(u32::MAX))?;
    let max_bytes = section.positive("maxBytesPerDoc")?.map(|bytes| bytes as usize);
    if section.enabled()? {
        let ttl = ttl.ok_or_else(|| section.wrong("ttlHours", "is missing"))?;
        config.dev_shadow = Some(DevShadow { ttl, max_bytes });
    }
    section.finish(&mut config.warnings);
    Ok(())
}

fn transactions(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let Some(mut section) = root.section("transactions")? else { return Ok(()) };
    let (enabled, auto_detect) = (section.enabled()?, section.flag("autoDetect")?.unwrap_or(true));
    config.transactions = Transactions { enabled, auto_detect };
    section.finish(&mut config.warnings);
    Ok(())
}

/// Sections other parts read. Their outline is checked here so that a mistyped key shows in `config check`.
fn sections(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    let outlines: [(&'static str, &[&'static str]); 2] = [
        ("analytics", &["counterRules", "timeBasedRules", "crossTenantRules", "tenants"]),
        ("counterRules", &["rules"]),
    ];
    for (key, known) in outlines {
        let Some(mut section) = root.section(key)? else { continue };
        section.accept(known);
        match key {
            "analytics" => {
                for list in known {
                    section.list(list)?;
                }
            }
            _ => drop(section.list("rules")?),
        }
        section.finish(&mut config.warnings);
        keep(root, key, config);
    }
    keep(root, "rollup", config);
    keep(root, "fallback", config);
    keep(root, "writeOptimization", config);
    keep(root, "chronow", config);
    super::counter_rules::check(config)?;
    config.analytics = Arc::new(AnalyticsRules::read(&config.sections, &mut config.warnings)?);
    Ok(())
}

fn keep(root: &mut Section<'_>, key: &'static str, config: &mut Config) {
    if let Some(written) = root.get(key) {
        config.sections.insert(key.to_owned(), written.clone());
    }
}
