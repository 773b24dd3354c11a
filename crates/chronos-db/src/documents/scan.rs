//! What is read: which documents, and in which order.

use bson::Bson;

use super::direction::Direction;
use super::filter::Filter;

/// "The newest document per item as of a bound", for [`Scan::newest`].
#[derive(Clone, PartialEq)]
pub struct Newest {
    /// The top-level field that names the group, such as `itemId`.
    pub per: String,
    /// The top-level field by which a document is newer, such as `at`; unique within a group.
    pub by: String,
    /// Documents with a larger value of `by` are left out first.
    pub at_most: Bson,
}

crate::debug_some!(Newest { per, by });

/// What to read from one collection, in which order.
#[derive(Clone, Default, PartialEq)]
pub struct Scan {
    /// Which documents. With [`Scan::newest`], conditions on its `per` field narrow the groups; all others
    /// apply to the newest documents.
    pub filter: Filter,
    /// First reduce every group to its newest document.
    pub newest: Option<Newest>,
    /// The order by dotted paths; values compare as BSON does (across types too, absent like null). Empty:
    /// any order. Few documents should share the values of all of them: what does comes in any order, and
    /// again and again to the store's mind.
    pub order: Vec<(String, Direction)>,
    /// Start strictly after the document that has these values of the order's paths (one each). The order's
    /// last path must be unique.
    pub after: Option<Vec<Bson>>,
    /// At most this many documents.
    pub limit: Option<u64>,
    /// Top-level fields to leave out of the answer, so that large ones needn't travel.
    pub without: Vec<String>,
}

crate::debug_some!(Scan { order, limit, without });
