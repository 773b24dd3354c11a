//! `collectionMaps`.

use std::collections::BTreeMap;

use super::identifiers::name;
use super::section::{Section, below, wrong};
use super::{Base64Property, CollectionMap, Config, Warning};
use crate::Result;

pub(super) fn read(root: &mut Section<'_>, config: &mut Config) -> Result<()> {
    for (collection, mut section) in root.members("collectionMaps")? {
        name(section.path(), "collection", collection)?;
        let map = collection_map(&mut section, &mut config.warnings)?;
        section.finish(&mut config.warnings);
        config.collection_maps.insert(collection.to_owned(), map);
    }
    Ok(())
}

/// Adds a map that was built in Rust.
pub(super) fn add(config: &mut Config, collection: String, map: CollectionMap) -> Result<()> {
    let path = below("collectionMaps", &collection);
    name(&path, "collection", &collection)?;
    let map = map.checked(&path, &mut config.warnings)?;
    config.collection_maps.insert(collection, map);
    Ok(())
}

fn collection_map(section: &mut Section<'_>, warnings: &mut Vec<Warning>) -> Result<CollectionMap> {
    let indexed = paths(section, "indexedProps")?;
    let mut required = Vec::new();
    if let Some(mut validation) = section.section("validation")? {
        required = paths(&mut validation, "requiredIndexed")?;
        validation.finish(warnings);
    }
    let base64 = base64(section, warnings)?;
    CollectionMap { indexed, required, base64 }.checked(section.path(), warnings)
}

fn paths(section: &mut Section<'_>, key: &'static str) -> Result<Vec<String>> {
    Ok(section.texts(key)?.into_iter().map(|(_, path)| path.to_owned()).collect())
}

fn base64(
    section: &mut Section<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<String, Base64Property>> {
    let mut properties = BTreeMap::new();
    for (path, mut property) in section.members("base64Props")? {
        let parsed = Base64Property {
            content_type: property.required_text("contentType")?.to_owned(),
            preferred_text: property.flag("preferredText")?.unwrap_or(false),
            text_charset: property.text("textCharset")?.unwrap_or("utf8").to_owned(),
        };
        property.finish(warnings);
        properties.insert(path.to_owned(), parsed);
    }
    Ok(properties)
}

impl CollectionMap {
    /// The map that stands at `path`, without what it names twice.
    pub(super) fn checked(mut self, path: &str, warnings: &mut Vec<Warning>) -> Result<Self> {
        let indexed_at = below(path, "indexedProps");
        let required_at = below(&below(path, "validation"), "requiredIndexed");
        self.indexed = distinct(self.indexed, &indexed_at, warnings)?;
        self.required = distinct(self.required, &required_at, warnings)?;
        for path in
            self.required.iter().filter(|path| !self.indexed.is_empty() && !self.indexed.contains(path))
        {
            let message = format!("`{path}` is required but not among `indexedProps`");
            warnings.push(Warning { path: required_at.clone(), message });
        }
        for (property, base64) in &self.base64 {
            let at = below(&below(path, "base64Props"), property);
            check_path(property, false).map_err(|message| wrong(&at, message))?;
            if base64.content_type.is_empty() {
                return Err(wrong(&below(&at, "contentType"), "is missing or empty"));
            }
        }
        for path in self.indexed.iter().filter(|path| self.base64.contains_key(*path)) {
            let message = format!("`{path}` is a base64 property and is not indexed");
            warnings.push(Warning { path: indexed_at.clone(), message });
        }
        Ok(self)
    }
}

/// The paths of a list that stands at `list`, each once.
fn distinct(paths: Vec<String>, list: &str, warnings: &mut Vec<Warning>) -> Result<Vec<String>> {
    let mut distinct = Vec::with_capacity(paths.len());
    for (position, path) in paths.into_iter().enumerate() {
        let at = format!("{list}[{position}]");
        check_path(&path, true).map_err(|message| wrong(&at, message))?;
        if distinct.contains(&path) {
            warnings.push(Warning { path: at, message: format!("`{path}` is listed twice") });
        } else {
            distinct.push(path);
        }
    }
    Ok(distinct)
}

/// Checks a dotted path; `[]` may stand behind a segment where arrays are meant.
fn check_path(path: &str, arrays: bool) -> Result<(), String> {
    for (position, segment) in path.split('.').enumerate() {
        let plain = if arrays { segment.strip_suffix("[]").unwrap_or(segment) } else { segment };
        let problem = if plain.is_empty() {
            "has an empty segment"
        } else if plain.starts_with('$') {
            "has a segment that starts with `$`"
        } else if plain.contains(['[', ']']) {
            if arrays {
                "holds a bracket elsewhere than `[]` at the end of a segment"
            } else {
                "holds a bracket; a base64 property is named by its dotted path"
            }
        } else if plain.chars().any(char::is_control) {
            "holds a control character"
        } else if position == 0 && plain == "_system" {
            "lies in `_system`, which is not the user's"
        } else {
            continue;
        };
        return Err(format!("the path `{}` {problem}", path.escape_debug()));
    }
    Ok(())
}
