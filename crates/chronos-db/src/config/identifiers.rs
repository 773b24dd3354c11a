//! Names of tenants, domains, buckets and databases, checked where they are read.

use super::section::{Section, wrong};
use crate::{Result, validate_name};

/// What every MongoDB server keeps for itself.
const RESERVED_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// MongoDB's bound for names of databases.
const MAX_DATABASE_BYTES: usize = 63;

/// A checked name of a tenant, domain or bucket; the error names the path.
pub(super) fn name(path: &str, what: &str, text: &str) -> Result<String> {
    validate_name(what, text).map(str::to_owned).map_err(|error| wrong(path, error.message()))
}

/// A checked name of a database. What MongoDB refuses is refused for every engine, so that a configuration
/// can move between them.
pub(crate) fn check_database(text: &str) -> Result<&str> {
    validate_name("database", text)?;
    if text.len() > MAX_DATABASE_BYTES {
        return Err(crate::Error::validation(format!(
            "the name of a database has at most {MAX_DATABASE_BYTES} bytes"
        )));
    }
    if RESERVED_DATABASES.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
        // `local` is not even replicated.
        return Err(crate::Error::validation(format!(
            "the database `{text}` is MongoDB's own: what is written there is lost or refused"
        )));
    }
    if text.contains(['.', ' ', '"']) {
        return Err(crate::Error::validation(format!(
            "the database `{text}` may not hold `.`, `\"` or spaces"
        )));
    }
    Ok(text)
}

pub(super) fn database(section: &mut Section<'_>, key: &'static str) -> Result<String> {
    let text = section.required_text(key)?;
    check_database(text).map(str::to_owned).map_err(|error| section.wrong(key, error.message()))
}

/// A bucket's name made from a database's: what S3 and Azure take is lower case, digits and single hyphens, 3
/// to 63 bytes.
pub(super) fn bucket_for(database: &str) -> String {
    let mut name = String::new();
    for c in database.chars().flat_map(char::to_lowercase) {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !(name.is_empty() || name.ends_with('-')) {
            name.push(c);
        }
    }
    name.truncate(63);
    let name = name.trim_end_matches('-');
    if name.len() < 3 { format!("chronos-{name}").trim_end_matches('-').to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_names_a_bucket_every_storage_takes() {
        let made = [
            ("chronos_runtime", "chronos-runtime"),
            ("Tenant__A_", "tenant-a"),
            ("ä", "chronos"),
            ("x", "chronos-x"),
        ];
        for (database, bucket) in made {
            assert_eq!(bucket_for(database), bucket);
        }
        assert_eq!(bucket_for(&"a_".repeat(50)).len(), 63);
    }
}
