//! What the operations of a log come to: which item each means, and whether it is known already.

use super::op::ImportOp;
use crate::Timestamp;
use crate::documents::Scan;
use crate::records::model::{ItemId, MarkId};
use crate::records::write::{Change, WriteOptions};

/// What is known of a key between two of its operations.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyState {
    pub(super) live: Option<ItemId>,
    /// The time of the newest version of its items.
    pub(super) newest: Option<Timestamp>,
    /// The time that version has in its log, once it was asked for or written; it may be some milliseconds
    /// earlier.
    pub(super) newest_in_log: Option<Timestamp>,
    pub(super) items: Vec<ItemId>,
}

/// An operation with what it is recognised by.
pub(super) struct Known {
    pub(super) operation: ImportOp,
    pub(super) key: Vec<u8>,
    pub(super) line: u64,
    pub(super) mark: Option<MarkId>,
}

/// A write that one operation comes to.
pub(super) struct Step {
    /// The operation's place in the log.
    pub(super) index: usize,
    pub(super) id: ItemId,
    pub(super) change: Change,
    pub(super) options: WriteOptions,
}

pub(super) fn without_payload(scan: Scan) -> Scan {
    Scan { without: ["inline", "riders", "metaIndexed"].map(str::to_owned).to_vec(), ..scan }
}
