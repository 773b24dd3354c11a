//! Scans in bounded pages, for every engine.
//!
//! A stream asks its engine for a page, gives it out, and asks for the next one when its reader goes on:
//! between pages it holds neither a snapshot, a cursor, a connection nor a thread, so it may stand still for
//! as long as its reader likes. The next page begins at the values by which the last one ended. A document
//! that does not change meanwhile is seen exactly once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, RawDocument, RawDocumentBuf};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::filter::key_encoding::{compare, encode, value_at};
use super::{Direction, Filter, Scan, raw_bson};
use crate::{Error, Result};

/// Documents of one page.
const PAGE: u64 = 256;
/// A page ends early with this many bytes.
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;
/// Where no index yields the order, every page costs a look at everything; this many documents are then ordered
/// at once, by their keys and ids alone.
const POSITIONS: u64 = 65_536;
/// Positions end early with this many bytes.
pub(crate) const POSITION_BYTES: usize = 16 * 1024 * 1024;

/// One question to an engine.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Its limit is set.
    pub(crate) scan: Scan,
    /// [`Scan::after`] is where to begin, instead of what to begin after.
    pub(crate) inclusive: bool,
    /// A page ends by its bytes with no fewer documents: those that were given out already, and one more, or
    /// a large one would be asked for for ever.
    pub(crate) at_least: usize,
}

/// What an engine found.
#[derive(Debug, Default)]
pub(crate) struct Page<T> {
    pub(crate) found: Vec<T>,
    /// It ended for another reason than that there is nothing more.
    pub(crate) more: bool,
}

/// The values by which a document stands where it stands, and its `_id`.
#[derive(Clone)]
pub(crate) struct Position {
    pub(crate) keys: Vec<Bson>,
    pub(crate) id: Bson,
}

crate::debug_some!(Position {});

impl Position {
    pub(crate) fn of(document: &RawDocument, order: &[(String, Direction)]) -> Result<Self> {
        let looked_at = |field: &str| order.iter().any(|(path, _)| path.split('.').next() == Some(field));
        let part = raw_bson::decode_part(document, looked_at)?;
        let keys =
            order.iter().map(|(path, _)| value_at(&part, path).cloned().unwrap_or(Bson::Null)).collect();
        Ok(Self { keys, id: raw_bson::id(document)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.iter().chain([&self.id]).map(|value| 32 + value.as_str().map_or(0, str::len)).sum()
    }
}

/// An engine that answers pages.
#[async_trait]
pub(crate) trait Pages: Send + Sync + 'static {
    /// Documents of a scan, up to its limit or [`PAGE_BYTES`].
    async fn page(&self, ask: Ask) -> Result<Page<RawDocumentBuf>>;

    /// The positions of its documents, up to its limit or [`POSITION_BYTES`].
    async fn positions(&self, ask: Ask) -> Result<Page<Position>>;

    /// Whether an index yields the scan's order, so that a page costs a page wherever it begins.
    async fn follows_index(&self, scan: &Scan) -> Result<bool>;
}

/// Checks what a scan asks for.
///
/// # Errors
/// `VALIDATION_ERROR`.
pub(crate) fn check(scan: &Scan) -> Result<()> {
    let paths = scan
        .order
        .iter()
        .map(|(path, _)| path)
        .chain(scan.newest.iter().flat_map(|newest| [&newest.per, &newest.by]));
    for path in paths {
        if path.is_empty() || path.contains('\0') {
            return Err(Error::validation(format!("`{}` is not a path to order by", path.escape_debug())));
        }
    }
    match &scan.after {
        Some(after) if after.len() != scan.order.len() || after.is_empty() => {
            Err(Error::validation(format!(
                "a scan starts after one value per path of its order: {} values for {} paths",
                after.len(),
                scan.order.len()
            )))
        }
        _ => Ok(()),
    }
}

/// The whole scan.
pub(crate) fn stream<P: Pages>(engine: P, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
    let begin = async move {
        check(&scan)?;
        Ok(stream::try_unfold(ScanProgress::new(engine, scan), |mut walk| async move {
            Ok(walk.next().await?.map(|page| (stream::iter(page.into_iter().map(Ok)), walk)))
        })
        .try_flatten())
    };
    stream::once(begin).try_flatten().boxed()
}

struct ScanProgress<P> {
    engine: Arc<P>,
    scan: Scan,
    /// Fields that are left out, but needed to know where a page ended.
    late: Vec<String>,
    left: u64,
    /// Where the last page ended.
    last: Option<Vec<Bson>>,
    /// The documents already given out that stand exactly there.
    tied: HashSet<Vec<u8>>,
    /// What was given out before there was an order.
    before: HashSet<Vec<u8>>,
    /// The next documents, of which only the order is known yet.
    waiting: VecDeque<Bson>,
    fetched_at_once: u64,
    follows_index: Option<bool>,
    pages: u64,
    ended: bool,
}

impl<P: Pages> ScanProgress<P> {
    fn new(engine: P, mut scan: Scan) -> Self {
        if scan.order.is_empty() {
            match &scan.newest {
                Some(newest) => scan.order = vec![(newest.per.clone(), Direction::Ascending)],
                None if scan.filter == Filter::All => scan.order = by_id(),
                // Whatever the filter is answered by best; an order comes only if that is more than a page.
                None => {}
            }
        }
        let left = scan.limit.unwrap_or(u64::MAX);
        let mut walk = Self {
            engine: Arc::new(engine),
            late: Vec::new(),
            left,
            last: None,
            tied: HashSet::new(),
            before: HashSet::new(),
            waiting: VecDeque::new(),
            fetched_at_once: PAGE,
            follows_index: None,
            pages: 0,
            ended: left == 0,
            scan,
        };
        walk.keep_what_is_ordered_by();
        walk
    }

    fn keep_what_is_ordered_by(&mut self) {
        let without = std::mem::take(&mut self.scan.without);
        let order = &self.scan.order;
        let is_needed = |field: &str| {
            field == "_id" || order.iter().any(|(path, _)| path.split('.').next() == Some(field))
        };
        let (late, early): (Vec<_>, Vec<_>) = without.into_iter().partition(|field| is_needed(field));
        self.late.extend(late);
        self.scan.without = early;
    }

    async fn next(&mut self) -> Result<Option<Vec<RawDocumentBuf>>> {
        loop {
            if self.left == 0 || (self.ended && self.waiting.is_empty()) {
                return Ok(None);
            }
            if !self.waiting.is_empty() {
                let found = self.fetch().await?;
                if !found.is_empty() {
                    return Ok(Some(found));
                }
                continue;
            }
            // A scan of one page is answered at once. Of a longer one it matters whether each page sorts
            // everything anew.
            if self.pages > 0 && self.follows_index.is_none() && !self.scan.order.is_empty() {
                self.follows_index = Some(self.engine.follows_index(&self.scan).await?);
            }
            if self.follows_index == Some(false) {
                self.look_ahead().await?;
                continue;
            }
            let found = self.page().await?;
            if !found.is_empty() {
                return Ok(Some(found));
            }
        }
    }

    fn ask(&self, limit: u64) -> Ask {
        let known = u64::try_from(self.tied.len() + self.before.len()).unwrap_or(0);
        let mut scan = Scan { limit: Some(limit.min(self.left).saturating_add(known)), ..self.scan.clone() };
        if let Some(last) = &self.last {
            scan.after = Some(last.clone());
        }
        Ask { scan, inclusive: self.last.is_some(), at_least: self.tied.len() + self.before.len() + 1 }
    }

    async fn page(&mut self) -> Result<Vec<RawDocumentBuf>> {
        let Page { found, more } = self.engine.page(self.ask(PAGE)).await?;
        self.pages += 1;
        self.ended = !more;
        if !more && self.tied.is_empty() && self.before.is_empty() {
            return self.give_out(found);
        }
        let ids =
            found.iter().map(|document| Ok(encode(&raw_bson::id(document)?))).collect::<Result<Vec<_>>>()?;
        let given = found
            .iter()
            .zip(&ids)
            .filter(|(_, id)| self.is_new(id))
            .map(|(document, _)| document.clone())
            .collect();
        if self.scan.order.is_empty() {
            // From here on there is an order, and what has come without one is left out of it.
            self.before = ids.into_iter().collect();
            self.scan.order = by_id();
            self.keep_what_is_ordered_by();
            // One by the id may take a sort: the filter's own index is worth more.
            self.follows_index = Some(false);
        } else if more {
            let order = self.scan.order.clone();
            let ends = found
                .iter()
                .zip(ids)
                .rev()
                .map(|(document, id)| Ok((Position::of(document, &order)?.keys, id)));
            self.ends_at(ends)?;
        }
        self.give_out(given)
    }

    /// Notes where a page ended; its documents come from the last one on.
    fn ends_at(&mut self, documents: impl Iterator<Item = Result<(Vec<Bson>, Vec<u8>)>>) -> Result<()> {
        let mut end: Option<Vec<Bson>> = None;
        let mut tied = HashSet::new();
        for document in documents {
            let (keys, id) = document?;
            if end.as_ref().is_some_and(|end| !same(end, &keys)) {
                break;
            }
            tied.insert(id);
            end.get_or_insert(keys);
        }
        if let Some(end) = end {
            if self.last.as_ref().is_some_and(|last| same(last, &end)) {
                tied.extend(std::mem::take(&mut self.tied));
            }
            self.last = Some(end);
            self.tied = tied;
        }
        Ok(())
    }

    fn is_new(&self, id: &Vec<u8>) -> bool {
        !self.tied.contains(id) && !self.before.contains(id)
    }

    /// Orders the next documents by their positions alone.
    async fn look_ahead(&mut self) -> Result<()> {
        let Page { found, more } = self.engine.positions(self.ask(POSITIONS)).await?;
        self.ended = !more;
        let new: Vec<Bson> = found
            .iter()
            .filter(|position| self.is_new(&encode(&position.id)))
            .map(|position| position.id.clone())
            .collect();
        self.waiting.extend(new);
        self.ends_at(found.into_iter().rev().map(|Position { keys, id }| Ok((keys, encode(&id)))))
    }

    /// The next documents of which the order is known; those that have come to match no longer, or are gone,
    /// are left out.
    async fn fetch(&mut self) -> Result<Vec<RawDocumentBuf>> {
        let next = usize::try_from(self.left.min(self.fetched_at_once))
            .unwrap_or(usize::MAX)
            .min(self.waiting.len());
        let ids: Vec<Bson> = self.waiting.iter().take(next).cloned().collect();
        let filter = self.scan.filter.clone().and(Filter::any_of("_id", ids.clone()));
        let limit = Some(u64::try_from(ids.len()).unwrap_or(u64::MAX));
        let scan = Scan { filter, limit, without: self.scan.without.clone(), ..Scan::default() };
        let Page { found, more } = self.engine.page(Ask { scan, inclusive: false, at_least: 1 }).await?;
        if more && found.len() < ids.len() {
            // They are large: fewer at once, so that none has to be thrown away for the sake of the order.
            self.fetched_at_once = u64::try_from(found.len() / 2).unwrap_or(1).max(1);
            return Ok(Vec::new());
        }
        self.waiting.drain(..next);
        let mut by_id: HashMap<Vec<u8>, RawDocumentBuf> = found
            .into_iter()
            .map(|document| Ok((encode(&raw_bson::id(&document)?), document)))
            .collect::<Result<_>>()?;
        self.give_out(ids.iter().filter_map(|id| by_id.remove(&encode(id))).collect())
    }

    fn give_out(&mut self, found: Vec<RawDocumentBuf>) -> Result<Vec<RawDocumentBuf>> {
        self.left = self.left.saturating_sub(u64::try_from(found.len()).unwrap_or(u64::MAX));
        if self.late.is_empty() {
            return Ok(found);
        }
        found
            .iter()
            .map(|document| raw_bson::leave_out(document, |field| self.late.iter().any(|late| late == field)))
            .collect()
    }
}

fn by_id() -> Vec<(String, Direction)> {
    vec![("_id".to_owned(), Direction::Ascending)]
}

fn same(a: &[Bson], b: &[Bson]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| compare(a, b).is_eq())
}
