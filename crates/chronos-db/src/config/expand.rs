//! `ENV.NAME`: values a program takes from its environment. The library itself reads none.

use super::section::{below, wrong};
use crate::{Json, Result};

/// Replaces every string that is exactly `ENV.NAME` (capitals, digits, underscores) by what `lookup` gives
/// for the name.
///
/// # Errors
/// `VALIDATION_ERROR` naming the JSON path and the variable if it is unset or empty.
///
/// ```
/// let mut text = chronos_db::json!({"dbConnections": {"main": {"mongoUri": "ENV.MONGO_URI"}}});
/// chronos_db::config::expand_env(&mut text, |name| (name == "MONGO_URI").then(|| "mongodb://localhost".to_owned()))?;
/// assert_eq!(text["dbConnections"]["main"]["mongoUri"], "mongodb://localhost");
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn expand_env(document: &mut Json, lookup: impl Fn(&str) -> Option<String>) -> Result<()> {
    expand(document, "", &lookup)
}

fn expand(value: &mut Json, path: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    match value {
        Json::String(text) => {
            if let Some(name) = variable(text) {
                let found = lookup(name).filter(|found| !found.is_empty());
                let found = found.ok_or_else(|| {
                    wrong(path, format!("the environment variable {name} is not set or empty"))
                })?;
                *text = found;
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{index}]"), lookup)?;
            }
        }
        Json::Object(members) => {
            for (key, member) in members.iter_mut() {
                expand(member, &below(path, key), lookup)?;
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
    Ok(())
}

fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("ENV.")?;
    let named =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    named.then_some(name)
}
