//! The log the demo imports, and how to read a company whatever its columns were called.

use chronos_db::{Error, ImportOp, Json, Result};

/// Every change of the list of the S&P 500's companies; see `data/README.md` of this crate.
const LOG: &str = include_str!("../../data/sp500-history.ndjson");

/// The property companies are known by.
pub(super) const KEY: &str = "Symbol";

/// What the source has called the same column over the years.
const NAME: &[&str] = &["Security", "Company", "Name"];
const SECTOR: &[&str] = &["GICS Sector", "Sector"];

/// The log, one batch a date: so the collection's versions follow the calendar.
pub(super) fn batches() -> Result<Vec<Vec<ImportOp>>> {
    let lines = LOG.lines().enumerate().map(|(i, line)| {
        let broken =
            |e: &dyn std::fmt::Display| Error::validation(format!("line {} of the demo's log: {e}", i + 1));
        let operation: Json = Json::parse(line).map_err(|e| broken(&e))?;
        Ok((operation["at"].clone(), ImportOp::parse(&operation).map_err(|e| broken(&e))?))
    });
    let lines: Vec<(Json, ImportOp)> = lines.collect::<Result<_>>()?;
    Ok(lines
        .chunk_by(|a, b| a.0 == b.0)
        .map(|date| date.iter().map(|(_, operation)| operation.clone()).collect())
        .collect())
}

/// The column of that meaning, and what stands in it.
fn column<'a>(company: &'a Json, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
    names.iter().find_map(|name| Some((*name, company.get(name)?.as_str()?)))
}

pub(super) fn name(company: &Json) -> &str {
    column(company, NAME).map_or("?", |(_, name)| name)
}

/// The sector, and the column it stands in.
pub(super) fn sector(company: &Json) -> Option<(&'static str, &str)> {
    column(company, SECTOR)
}

/// One property that differs between two versions of a company.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference<'a> {
    Added(&'a str, &'a Json),
    Removed(&'a str, &'a Json),
    Changed(&'a str, &'a Json, &'a Json),
    /// The column has another name; its value may differ too.
    Renamed {
        from: &'a str,
        to: &'a str,
        was: &'a Json,
        is: &'a Json,
    },
}

/// What distinguishes two versions, property by property.
pub(super) fn differences<'a>(old: &'a Json, new: &'a Json) -> Vec<Difference<'a>> {
    let properties = |of: &'a Json| of.as_object().into_iter().flatten();
    let same_column =
        |a: &str, b: &str| [NAME, SECTOR].iter().any(|names| names.contains(&a) && names.contains(&b));
    let renamed_to =
        |gone: &str| properties(new).find(|(name, _)| old.get(name).is_none() && same_column(gone, name));
    let mut found = Vec::new();
    let mut arrived = Vec::new();
    for (name, was) in properties(old) {
        match (new.get(name), renamed_to(name)) {
            (Some(is), _) if is != was => found.push(Difference::Changed(name, was, is)),
            (Some(_), _) => {}
            (None, Some((to, is))) => {
                arrived.push(to);
                found.push(Difference::Renamed { from: name, to, was, is });
            }
            (None, None) => found.push(Difference::Removed(name, was)),
        }
    }
    let added = properties(new).filter(|(name, _)| old.get(name).is_none() && !arrived.contains(name));
    found.extend(added.map(|(name, is)| Difference::Added(name, is)));
    found
}

#[cfg(test)]
mod tests {
    use chronos_db::json;

    use super::*;

    #[test]
    fn a_column_under_a_new_name_is_no_new_column() {
        let old = json!({ "Symbol": "MMM", "Name": "3M", "Sector": "Conglomerates", "Gone": 1 });
        let new = json!({ "Symbol": "MMM", "Security": "3M", "GICS Sector": "Industrials", "CIK": "66740" });
        let expected = [
            Difference::Renamed { from: "Name", to: "Security", was: &json!("3M"), is: &json!("3M") },
            Difference::Renamed {
                from: "Sector",
                to: "GICS Sector",
                was: &json!("Conglomerates"),
                is: &json!("Industrials"),
            },
            Difference::Removed("Gone", &json!(1)),
            Difference::Added("CIK", &json!("66740")),
        ];
        assert_eq!(differences(&old, &new), expected);
        assert_eq!(differences(&new, &new), []);
    }

    #[test]
    fn the_log_has_one_batch_a_date_and_every_line_is_an_operation() {
        let batches = batches().unwrap();
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), LOG.lines().count());
        assert!(batches.len() > 100);
    }
}
