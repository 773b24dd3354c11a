//! Reads: by `_id`, and scans that SQLite narrows and orders and the evaluator decides.

use std::ops::ControlFlow;

use bson::{RawDocument, RawDocumentBuf};
use rusqlite::{OptionalExtension as _, params_from_iter};

use super::catalog::Session;
use super::error::SqliteError;
use super::layout::Table;
use super::query::Query;
use crate::Error;
use crate::documents::filter::Test;
use crate::documents::paging::{Ask, PAGE_BYTES, POSITION_BYTES, Page, Position};
use crate::documents::{Filter, Index, Namespace, Scan, raw_bson};

/// Takes a document; says whether it wants more.
type Take<'a> = &'a mut dyn FnMut(&RawDocument) -> Result<ControlFlow<()>, Error>;

/// Of this many matches, the first are looked for in their order, and not in the order of what they match by.
const MANY: u64 = 1_000;

/// Rows that do not match between two questions whether a reader still listens.
const ROWS_BETWEEN_CHECKS: u32 = 1024;

impl Session {
    pub(super) fn get(
        &mut self,
        namespace: &Namespace,
        ids: &[Vec<u8>],
    ) -> Result<Vec<RawDocumentBuf>, SqliteError> {
        let Some(table) = self.table(namespace)? else { return Ok(Vec::new()) };
        let mut statement = self.statement(&table.select)?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let mut rows = statement.query([id])?;
            if let Some(row) = rows.next()? {
                found.push(raw_bson::framed(blob(row)?)?.to_owned());
            }
        }
        Ok(found)
    }

    /// How many documents match, `at_most` at most: from an index alone where one tells.
    pub(super) fn count(
        &mut self,
        namespace: &Namespace,
        filter: &Filter,
        at_most: u64,
    ) -> Result<u64, SqliteError> {
        let Some(table) = self.table(namespace)? else { return Ok(0) };
        if let Some(query) = Query::count(&table, filter, at_most) {
            let mut counted = self.statement(&query.sql)?;
            let count: i64 = counted.query_row(params_from_iter(&query.parameters), |row| row.get(0))?;
            return Ok(count.unsigned_abs());
        }
        let scan = Scan { filter: filter.clone(), limit: Some(at_most), ..Scan::default() };
        let mut count = 0;
        self.scan(namespace, &Ask { scan, inclusive: false, at_least: 1 }, &|| true, &mut |_| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    /// The documents of a page; `listening` is asked now and then while nothing is found.
    pub(super) fn page(
        &mut self,
        namespace: &Namespace,
        ask: &Ask,
        listening: &dyn Fn() -> bool,
    ) -> Result<Page<RawDocumentBuf>, SqliteError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let without = &ask.scan.without;
        let more = self.scan(namespace, ask, listening, &mut |document| {
            let document = if without.is_empty() {
                document.to_owned()
            } else {
                raw_bson::leave_out(document, |field| without.iter().any(|without| without == field))?
            };
            bytes += document.as_bytes().len();
            found.push(document);
            Ok(if bytes < PAGE_BYTES || found.len() < ask.at_least {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        Ok(Page { found, more })
    }

    /// The positions of a page's documents.
    pub(super) fn positions(
        &mut self,
        namespace: &Namespace,
        ask: &Ask,
        listening: &dyn Fn() -> bool,
    ) -> Result<Page<Position>, SqliteError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let more = self.scan(namespace, ask, listening, &mut |document| {
            let position = Position::of(document, &ask.scan.order)?;
            bytes += position.len();
            found.push(position);
            Ok(if bytes < POSITION_BYTES || found.len() < ask.at_least {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        Ok(Page { found, more })
    }

    /// Whether SQLite can step along an index in the scan's order.
    pub(super) fn follows_index(&mut self, namespace: &Namespace, scan: &Scan) -> Result<bool, SqliteError> {
        Ok(match (self.table(namespace)?, &scan.newest) {
            (None, _) => true,
            (Some(_), Some(newest)) => scan.order.first().is_some_and(|(path, _)| *path == newest.per),
            (Some(table), None) => table
                .layout
                .indexes
                .iter()
                .chain([&Index::on("_id_", &["_id"])])
                .any(|index| index.yields(scan)),
        })
    }

    /// The paths of the index that yields the scan's order, if it is better followed than one that the filter
    /// could enter by.
    ///
    /// SQLite knows neither how many rows a filter lets through nor how many are wanted, and sorts all it can
    /// find by the filter, for each page anew. So that is left to it only if they are few.
    fn order_to_follow(&self, table: &Table, scan: &Scan) -> Result<Option<Vec<String>>, SqliteError> {
        if scan.newest.is_some() || scan.order.is_empty() || scan.limit.is_none() {
            return Ok(None);
        }
        let by_id = Index::on("_id_", &["_id"]);
        let indexes = table.layout.indexes.iter().chain([&by_id]);
        let best = indexes
            .filter_map(|index| Some((index.prefix_before(scan)?, index)))
            .max_by_key(|(prefix, _)| *prefix);
        let Some((prefix, index)) = best else { return Ok(None) };
        let paths: Vec<String> =
            index.keys.iter().take(prefix + scan.order.len()).map(|(path, _)| path.clone()).collect();
        let mut entries = Vec::new();
        look_into(&scan.filter, &mut entries);
        let is_elsewhere =
            |path: &&str| table.indexed("r", path).is_some() && !paths.iter().any(|known| known == path);
        // An index that serves both the filter and the order is taken anyway.
        if paths.first().is_some_and(|first| entries.contains(&first.as_str()))
            || !entries.iter().any(is_elsewhere)
        {
            return Ok(None);
        }
        let query = Query::matches(table, &scan.filter, MANY);
        let matches: i64 =
            self.statement(&query.sql)?.query_row(params_from_iter(&query.parameters), |row| row.get(0))?;
        Ok((matches.unsigned_abs() >= MANY).then_some(paths))
    }

    /// Runs a scan up to its limit; says whether it ended for another reason than that there is nothing more.
    fn scan(
        &mut self,
        namespace: &Namespace,
        ask: &Ask,
        listening: &dyn Fn() -> bool,
        take: Take<'_>,
    ) -> Result<bool, SqliteError> {
        let Some(table) = self.table(namespace)? else { return Ok(false) };
        let scan = &ask.scan;
        let query = match self.order_to_follow(&table, scan)? {
            Some(paths) => Query::plain(&table, ask, Some(&paths)),
            None => Query::new(&table, ask),
        };
        let mut found = self.statement(&query.sql)?;
        let mut by_number = self.statement(&format!("SELECT doc FROM d{} WHERE rowid=?", table.number))?;
        let reader = Reader::new(&scan.filter);
        let (mut left, mut passed) = (scan.limit.unwrap_or(u64::MAX), 0_u32);
        let mut rows = found.query(params_from_iter(&query.parameters))?;
        while left > 0 {
            let Some(row) = rows.next()? else { return Ok(false) };
            let taken = if query.by_number {
                let number: i64 = row.get(0)?;
                by_number
                    .query_row([number], |row| Ok(blob(row).and_then(|bytes| reader.read(bytes, take))))
                    .optional()?
                    .transpose()?
                    .flatten()
            } else {
                reader.read(blob(row)?, take)?
            };
            match taken {
                Some(ControlFlow::Break(())) => return Ok(true),
                Some(ControlFlow::Continue(())) => {
                    left -= 1;
                    passed = 0;
                }
                None => passed += 1,
            }
            if passed >= ROWS_BETWEEN_CHECKS {
                passed = 0;
                if !listening() {
                    break;
                }
            }
        }
        Ok(true)
    }
}

fn blob<'a>(row: &'a rusqlite::Row<'_>) -> Result<&'a [u8], SqliteError> {
    row.get_ref(0)?
        .as_blob()
        .map_err(|e| Error::database("a stored document is not a blob").caused_by(e).into())
}

/// Looks for the documents that match.
struct Reader<'a> {
    filter: &'a Filter,
    /// The top-level fields the filter looks at.
    looked_at: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn new(filter: &'a Filter) -> Self {
        let looked_at =
            filter.fields().map(|(path, _)| path.split_once('.').map_or(path, |(top, _)| top)).collect();
        Self { filter, looked_at }
    }

    /// Hands on a document that matches.
    fn read(&self, bytes: &[u8], take: Take<'_>) -> Result<Option<ControlFlow<()>>, SqliteError> {
        let document = raw_bson::framed(bytes)?;
        if *self.filter != Filter::All
            && !self
                .filter
                .matches(&raw_bson::decode_part(document, |field| self.looked_at.contains(&field))?)
        {
            return Ok(None);
        }
        Ok(Some(take(document)?))
    }
}

/// The paths by which an index may serve a filter.
fn look_into<'a>(filter: &'a Filter, paths: &mut Vec<&'a str>) {
    match filter {
        Filter::All | Filter::Or(_) | Filter::Nor(_) => {}
        Filter::And(parts) => parts.iter().for_each(|part| look_into(part, paths)),
        Filter::Field(_, Test::Ne(_) | Test::Nin(_) | Test::Not(_) | Test::Exists(_)) => {}
        Filter::Field(path, _) => paths.push(path),
    }
}
