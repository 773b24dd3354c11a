//! What a collection is searched by.

use super::direction::Direction;
#[cfg(any(feature = "embedded", feature = "mongodb"))]
use super::scan::Scan;

/// An index a collection must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// The name, unique in the collection.
    pub name: String,
    /// The dotted paths and their directions.
    pub keys: Vec<(String, Direction)>,
    /// Whether two documents may not have the same values.
    pub unique: bool,
    /// Only documents in which this path exists are indexed (and, with `unique`, compared).
    pub only_if_exists: Option<String>,
}

impl Index {
    /// Describes an ascending index over `paths`.
    #[must_use]
    pub fn on(name: &str, paths: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            keys: paths.iter().map(|p| ((*p).to_owned(), Direction::Ascending)).collect(),
            unique: false,
            only_if_exists: None,
        }
    }

    /// Makes it unique.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// Limits it to documents in which `path` exists.
    #[must_use]
    pub fn only_if_exists(mut self, path: &str) -> Self {
        self.only_if_exists = Some(path.to_owned());
        self
    }

    /// Whether documents come from this index in the scan's order: its first paths have one value each by the
    /// filter, the next ones are the order's, all in their directions or all the other way around.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn yields(&self, scan: &Scan) -> bool {
        self.prefix_before(scan).is_some()
    }

    /// How many of its paths have one value each by the filter, before those of the scan's order.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn prefix_before(&self, scan: &Scan) -> Option<usize> {
        // A partial index serves only what lets no document through that is not in it.
        if self.only_if_exists.as_ref().is_some_and(|path| !scan.filter.demands_value(path))
            || scan.newest.is_some()
        {
            return None;
        }
        let fixed = self.keys.iter().take_while(|(path, _)| scan.filter.fixes(path).is_some()).count();
        (0..=fixed).rev().find(|prefix| {
            let rest = self.keys.get(*prefix..).unwrap_or_default();
            let turned = rest
                .iter()
                .zip(&scan.order)
                .map(|((key, way), (path, wanted))| (key == path).then_some(way == wanted));
            let turned: Option<Vec<bool>> = turned.collect();
            rest.len() >= scan.order.len()
                && turned.is_some_and(|turned| turned.iter().all(|same| Some(same) == turned.first()))
        })
    }
}
