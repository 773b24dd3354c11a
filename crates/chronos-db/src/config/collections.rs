//! `collectionMaps`.

use std::collections::BTreeMap;

use super::identifiers::name;
use super::section::{Section, wrong};
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

fn collection_map(section: &mut Section<'_>, warnings: &mut Vec<Warning>) -> Result<CollectionMap> {
    let indexed = paths(section, "indexedProps", warnings)?;
    let mut required = Vec::new();
    if let Some(mut validation) = section.section("validation")? {
        required = paths(&mut validation, "requiredIndexed", warnings)?;
        for path in required.iter().filter(|path| !indexed.is_empty() && !indexed.contains(path)) {
            warnings.push(
                validation
                    .warning("requiredIndexed", format!("`{path}` is required but not among `indexedProps`")),
            );
        }
        validation.finish(warnings);
    }
    let base64 = base64(section, warnings)?;
    for path in indexed.iter().filter(|path| base64.contains_key(*path)) {
        warnings.push(
            section.warning("indexedProps", format!("`{path}` is a base64 property and is not indexed")),
        );
    }
    Ok(CollectionMap { indexed, required, base64 })
}

fn paths(section: &mut Section<'_>, key: &'static str, warnings: &mut Vec<Warning>) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for (at, path) in section.texts(key)? {
        check_path(path, true).map_err(|message| wrong(&at, message))?;
        if paths.iter().any(|known| known == path) {
            warnings.push(Warning { path: at, message: format!("`{path}` is listed twice") });
        } else {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

fn base64(
    section: &mut Section<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<String, Base64Property>> {
    let mut properties = BTreeMap::new();
    for (path, mut property) in section.members("base64Props")? {
        check_path(path, false).map_err(|message| wrong(property.path(), message))?;
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
