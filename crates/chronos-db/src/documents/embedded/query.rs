//! The SQL of scans and counts.

use bson::Bson;

use super::layout::Table;
use crate::documents::filter::{self, Test, key_encoding};
use crate::documents::paging::Ask;
use crate::documents::{Direction, Filter, Newest, Scan};

/// SQLite takes 32,766 in a statement; the rest is for where a scan begins.
const MAX_PARAMETERS: usize = 32_000;

/// Groups that a statement names one by one; terms of a VALUES are limited in places.
const MAX_GROUPS: usize = 8_000;

/// SQL that yields row numbers or documents.
#[derive(Default)]
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Vec<u8>>,
    /// It yields row numbers, so that only they and the keys are sorted.
    pub(super) by_number: bool,
}

crate::debug_some!(Query { sql });

impl Query {
    pub(super) fn new(table: &Table, ask: &Ask) -> Self {
        match &ask.scan.newest {
            None => Self::plain(table, ask, None),
            Some(newest) if table.has_index_on(&[&newest.per, &newest.by]) => {
                Self::newest_by_index(table, ask, newest)
            }
            Some(newest) => Self::newest_by_sorting(table, ask, newest),
        }
    }

    fn add(&mut self, sql: &str, parameters: Vec<Vec<u8>>) {
        self.sql.push_str(sql);
        self.parameters.extend(parameters);
    }

    /// The condition of a filter on rows of `row`.
    fn matching(&mut self, table: &Table, row: &str, filter: &Filter) {
        self.matching_by(filter, &|path| table.indexed(row, path), &|path| table.may_hold_arrays(path), None);
    }

    /// The same, of a scan that begins at a value of the first path of its order.
    fn matching_by(
        &mut self,
        filter: &Filter,
        columns: filter::Columns<'_>,
        may_hold_arrays: &dyn Fn(&str) -> bool,
        beyond: Option<(&str, Direction, &Bson)>,
    ) {
        let sql = filter::to_sql_beyond(filter, columns, may_hold_arrays, beyond);
        if self.parameters.len() + sql.parameters.len() > MAX_PARAMETERS {
            // Every row passes; the evaluator decides.
            self.add("1", Vec::new());
        } else {
            self.add(&sql.text, sql.parameters);
        }
    }

    /// " AND …" by which SQLite sees that partial indexes serve the filter.
    fn partial(&mut self, table: &Table, filter: &Filter) {
        for condition in table.partial_conditions("r", filter) {
            self.add(&format!(" AND {condition}"), Vec::new());
        }
    }

    /// " AND …" for where the scan begins.
    fn after(&mut self, table: &Table, Ask { scan, inclusive, .. }: &Ask) {
        let Some(after) = &scan.after else { return };
        let sql = filter::after_to_sql(&scan.order, after, *inclusive, &|path| Some(table.value("r", path)));
        self.add(" AND ", Vec::new());
        self.add(&sql.text, sql.parameters);
    }

    fn order(&mut self, table: &Table, scan: &Scan) {
        for (at, (path, direction)) in scan.order.iter().enumerate() {
            let word = if at == 0 { " ORDER BY " } else { ", " };
            let direction = if *direction == Direction::Descending { " DESC" } else { "" };
            self.add(&format!("{word}{}{direction}", table.value("r", path)), Vec::new());
        }
    }

    /// With `along`, by no other index than one over these paths.
    pub(super) fn plain(table: &Table, ask: &Ask, along: Option<&[String]>) -> Self {
        let scan = &ask.scan;
        let mut query = Self { by_number: !scan.order.is_empty(), ..Self::default() };
        let column = if query.by_number { "rowid" } else { "doc" };
        query.add(&format!("SELECT r.{column} FROM d{} r WHERE ", table.number), Vec::new());
        let beyond = scan.order.first().zip(scan.after.as_ref().and_then(|after| after.first()));
        let beyond = beyond.map(|((path, direction), value)| (path.as_str(), *direction, value));
        let columns = |path: &str| {
            let column = table.indexed("r", path)?;
            // What SQLite has to compute it looks for in no index.
            let hidden = along.is_some_and(|along| !along.iter().any(|known| known == path));
            Some(if hidden { format!("+{column}") } else { column })
        };
        query.matching_by(&scan.filter, &columns, &|path| table.may_hold_arrays(path), beyond);
        query.partial(table, &scan.filter);
        query.after(table, ask);
        query.order(table, scan);
        query
    }

    /// How many rows may match, `at_most` at most.
    pub(super) fn matches(table: &Table, filter: &Filter, at_most: u64) -> Self {
        let mut query = Self::default();
        query.add(&format!("SELECT count(*) FROM (SELECT 1 FROM d{} r WHERE ", table.number), Vec::new());
        query.matching(table, "r", filter);
        query.partial(table, filter);
        query.add(&format!(" LIMIT {at_most})"), Vec::new());
        query
    }

    /// How many rows match, `at_most` at most; none if SQLite alone cannot tell.
    pub(super) fn count(table: &Table, filter: &Filter, at_most: u64) -> Option<Self> {
        if !filter::is_exact_in_sql(filter, &|path| {
            table.indexed("r", path).is_some() && !table.may_hold_arrays(path)
        }) {
            return None;
        }
        let mut query = Self::default();
        query.add(&format!("SELECT count(*) FROM (SELECT 1 FROM d{} r WHERE ", table.number), Vec::new());
        query.matching(table, "r", filter);
        if query.parameters.is_empty() && *filter != Filter::All {
            // Too many values for a statement: every row passes.
            return None;
        }
        query.partial(table, filter);
        query.add(&format!(" LIMIT {})", i64::try_from(at_most).unwrap_or(i64::MAX)), Vec::new());
        Some(query)
    }

    /// Hops from group to group along the index, and in each to its newest: what it costs depends on the
    /// number of groups, not of documents.
    fn newest_by_index(table: &Table, ask: &Ask, newest: &Newest) -> Self {
        let scan = &ask.scan;
        let number = table.number;
        let bound = key_encoding::encode(&newest.at_most);
        let (per, by) = (table.value("n", &newest.per), table.value("n", &newest.by));
        let groups = only_about(&scan.filter, &newest.per);
        // The hops go in the direction of an order by group, which then needs no sorting: groups are unique.
        let by_group =
            scan.order.first().filter(|(path, _)| *path == newest.per).map(|(_, direction)| *direction);
        let (sign, or_at, direction) = match by_group {
            Some(Direction::Descending) => ("<", "<=", " DESC"),
            _ => (">", ">=", ""),
        };
        let mut query = Self { by_number: true, ..Self::default() };
        match named(&groups, &newest.per)
            .filter(|named| named.len() <= MAX_GROUPS && !table.may_hold_arrays(&newest.per))
        {
            // Of an IN in the order of the groups SQLite would sort all rows of all of them, for each hop.
            Some(named) => query.groups(named, scan.after.as_ref().and_then(|after| after.first()), by_group),
            None => {
                query.add(
                    &format!("WITH RECURSIVE g(p) AS (SELECT * FROM (SELECT {per} FROM d{number} n WHERE "),
                    Vec::new(),
                );
                query.matching(table, "n", &groups);
                if let (Some(after), true) =
                    (scan.after.as_ref().and_then(|after| after.first()), by_group.is_some())
                {
                    query.add(&format!(" AND {per} {or_at} ?"), vec![key_encoding::encode(after)]);
                }
                let next = format!("SELECT {per} FROM d{number} n WHERE {per} {sign} g.p AND ");
                query.add(
                    &format!(" ORDER BY {per}{direction} LIMIT 1) UNION ALL SELECT ({next}"),
                    Vec::new(),
                );
                query.matching(table, "n", &groups);
                query.add(
                    &format!(" ORDER BY {per}{direction} LIMIT 1) FROM g WHERE g.p IS NOT NULL) "),
                    Vec::new(),
                );
            }
        }
        query.add(
            &format!(
                "SELECT r.rowid FROM g CROSS JOIN d{number} r WHERE g.p IS NOT NULL AND r.rowid = \
                 (SELECT n.rowid FROM d{number} n WHERE {per} = g.p AND {by} <= ? ORDER BY {by} DESC LIMIT 1) AND "
            ),
            vec![bound],
        );
        query.matching(table, "r", &scan.filter);
        query.after(table, ask);
        if by_group.is_none() {
            query.order(table, scan);
        }
        query
    }

    /// The groups that a filter names, those from `after` on.
    fn groups(&mut self, named: &[Bson], after: Option<&Bson>, by_group: Option<Direction>) {
        let mut groups: Vec<Vec<u8>> = named.iter().map(key_encoding::encode).collect();
        groups.sort();
        groups.dedup();
        match (by_group, after.map(key_encoding::encode)) {
            (Some(Direction::Ascending), Some(after)) => groups.retain(|group| *group >= after),
            (Some(Direction::Descending), Some(after)) => groups.retain(|group| *group <= after),
            _ => {}
        }
        if by_group == Some(Direction::Descending) {
            groups.reverse();
        }
        if groups.is_empty() {
            self.add("WITH g(p) AS (SELECT NULL) ", Vec::new());
        } else {
            self.add(&format!("WITH g(p) AS (VALUES {}) ", vec!["(?)"; groups.len()].join(",")), groups);
        }
    }

    /// Without an index that begins with the group and what makes a document newer: one pass, sorted by
    /// SQLite, on disk if need be.
    fn newest_by_sorting(table: &Table, ask: &Ask, newest: &Newest) -> Self {
        let scan = &ask.scan;
        let number = table.number;
        let (per, by) = (table.value("n", &newest.per), table.value("n", &newest.by));
        let mut query = Self { by_number: true, ..Self::default() };
        query.add(
            &format!(
                "SELECT r.rowid FROM (SELECT n.rowid AS i, max({by}) FROM d{number} n WHERE {by} <= ? AND "
            ),
            vec![key_encoding::encode(&newest.at_most)],
        );
        query.matching(table, "n", &only_about(&scan.filter, &newest.per));
        query.add(&format!(" GROUP BY {per}) g CROSS JOIN d{number} r ON r.rowid = g.i WHERE "), Vec::new());
        query.matching(table, "r", &scan.filter);
        query.after(table, ask);
        query.order(table, scan);
        query
    }
}

/// The values of `path` that a filter names.
fn named<'f>(filter: &'f Filter, path: &str) -> Option<&'f [Bson]> {
    match filter {
        Filter::And(parts) => parts.iter().find_map(|part| named(part, path)),
        Filter::Field(field, Test::Eq(value)) if field == path => Some(std::slice::from_ref(value)),
        Filter::Field(field, Test::In(values)) if field == path => Some(values),
        _ => None,
    }
}

/// The part of a filter that speaks of `path` alone and must hold.
fn only_about(filter: &Filter, path: &str) -> Filter {
    let about = |filter: &Filter| {
        filter.fields().all(|(field, test)| field == path && !matches!(test, Test::Exists(_)))
    };
    match filter {
        Filter::And(parts) => parts.iter().filter(|part| about(part)).cloned().fold(Filter::All, Filter::and),
        whole if about(whole) => whole.clone(),
        _ => Filter::All,
    }
}
