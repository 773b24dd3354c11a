//! What is written: guarded inserts, puts and deletes, in batches.

use std::fmt;

use bson::{Bson, Document, RawDocumentBuf};

use super::namespace::Namespace;
use super::raw_bson;
use crate::{Result, Timestamp};

/// Under which condition on the stored document (the one with the same `_id`) a write takes place.
#[derive(Clone, PartialEq)]
pub enum Guard {
    /// Always; a put creates the document if it is absent.
    Any,
    /// Only if a document is there and its top-level `field` equals `value`.
    Equals {
        /// The top-level field.
        field: String,
        /// The value it must have.
        value: Bson,
    },
    /// Only if no document is there, or its top-level `field` is less than that of the document put. Puts of
    /// one document may then arrive in any order, and more than once, and the newest stays. For puts alone.
    Newer {
        /// The top-level field, a number in every document.
        field: String,
    },
}

/// Without the value.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Equals { field, .. } => write!(f, "Equals({field})"),
            Self::Newer { field } => write!(f, "Newer({field})"),
        }
    }
}

/// A document to be written: its fields, or the bytes it will be stored as, from a caller that makes these
/// directly.
#[derive(Clone, PartialEq)]
pub enum NewDocument {
    /// Encoded when it is applied.
    Fields(Document),
    /// Taken as they are.
    Bytes(RawDocumentBuf),
}

/// Without the document.
impl fmt::Debug for NewDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewDocument(..)")
    }
}

impl From<Document> for NewDocument {
    fn from(fields: Document) -> Self {
        Self::Fields(fields)
    }
}

impl From<RawDocumentBuf> for NewDocument {
    fn from(bytes: RawDocumentBuf) -> Self {
        Self::Bytes(bytes)
    }
}

impl NewDocument {
    /// Returns the bytes that are stored.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the fields cannot be encoded, or nest deeper than 200 levels.
    pub fn into_bytes(self) -> Result<RawDocumentBuf> {
        let bytes = match self {
            Self::Fields(fields) => raw_bson::encode(&fields)?,
            Self::Bytes(bytes) => bytes,
        };
        raw_bson::check_levels(&bytes)?;
        Ok(bytes)
    }
}

/// One write of a [`Batch`]. Every document carries its `_id`.
#[derive(Clone, PartialEq)]
pub enum Write {
    /// Adds a document; a [`Outcome::Conflict`] if its `_id` or a unique index already has its value.
    Insert(NewDocument),
    /// Replaces the whole document, or creates it where the guard allows.
    Put {
        /// The new document.
        document: NewDocument,
        /// When it may be put.
        guard: Guard,
    },
    /// Removes a document; [`Guard::Newer`] is refused.
    Delete {
        /// The `_id`.
        id: Bson,
        /// When it may be removed.
        guard: Guard,
    },
}

/// Without the document.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(_) => f.write_str("Insert(..)"),
            Self::Put { guard, .. } => write!(f, "Put({guard:?}, ..)"),
            Self::Delete { guard, .. } => write!(f, "Delete({guard:?}, ..)"),
        }
    }
}

impl Write {
    /// Makes an [`Insert`](Self::Insert).
    ///
    /// ```
    /// use bson::{doc, rawdoc};
    /// use chronos_db::documents::{Batch, Namespace, Write};
    ///
    /// let mut batch = Batch::new();
    /// batch.push(&Namespace::new("shop", "parts"), Write::insert(doc! { "_id": 1, "name": "bolt" }));
    /// batch.push(&Namespace::new("shop", "parts"), Write::insert(rawdoc! { "_id": 2, "name": "nut" }));
    /// ```
    pub fn insert(document: impl Into<NewDocument>) -> Self {
        Self::Insert(document.into())
    }

    /// Makes a [`Put`](Self::Put).
    pub fn put(document: impl Into<NewDocument>, guard: Guard) -> Self {
        Self::Put { document: document.into(), guard }
    }
}

/// A write, where, and what it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The collection.
    pub namespace: Namespace,
    /// The write.
    pub write: Write,
    /// The index of an earlier operation of the batch that must have been [`Outcome::Applied`]; otherwise
    /// this one is [`Outcome::Skipped`].
    pub requires: Option<usize>,
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took place and is durable.
    Applied,
    /// A unique index, or `_id`, already has its value. `index` is the index's name (`_id_` for `_id`) where
    /// the store says it.
    Conflict {
        /// The name of the violated index.
        index: Option<String>,
    },
    /// The guard did not hold.
    Refused,
    /// The operation it requires was not applied, or (with [`Atomicity::All`]) another one failed.
    Skipped,
}

impl Outcome {
    /// Returns whether the write took place.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        *self == Self::Applied
    }
}

/// What a [`Batch`] promises if an operation fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atomicity {
    /// Each operation takes place or fails by itself; a crash may leave any prefix of the stages (see
    /// [`Batch`]).
    #[default]
    Each,
    /// All or none. Refused with `VALIDATION_ERROR` where
    /// [`Capabilities::transactions`](super::Capabilities::transactions) is false.
    All,
}

/// Writes that travel together, in few round trips.
///
/// Operations without `requires` come first, those that require them after; within such a stage the order is
/// undefined, so a stage should not write one document twice. Applied writes are durable (journaled, on a
/// majority) when the call returns.
///
/// With several [`Guard::Equals`] operations in one batch, an operation that took place but whose document
/// was changed again by another client before its outcome was known may be reported as [`Outcome::Refused`];
/// a caller that must know for certain sends it alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The operations.
    pub operations: Vec<Operation>,
    /// All or each.
    pub atomicity: Atomicity,
}

impl Batch {
    /// Makes an empty batch in which each operation stands for itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation and returns its index.
    pub fn push(&mut self, namespace: &Namespace, write: Write) -> usize {
        self.operations.push(Operation { namespace: namespace.clone(), write, requires: None });
        self.operations.len() - 1
    }

    /// Adds an operation that takes place only if the one at `requires` did; returns its index.
    pub fn push_after(&mut self, requires: usize, namespace: &Namespace, write: Write) -> usize {
        self.operations.push(Operation { namespace: namespace.clone(), write, requires: Some(requires) });
        self.operations.len() - 1
    }
}

/// Numbers given out by [`DocumentStore::sequence`](super::DocumentStore::sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The first of them.
    pub first: i64,
    /// How many.
    pub count: u32,
    /// The store's time when they were given out.
    pub now: Timestamp,
}

/// What [`DocumentStore::sequence_then`](super::DocumentStore::sequence_then) did.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The numbers given out.
    pub sequence: Sequence,
    /// One per operation of the batch that was built with them, in its order.
    pub outcomes: Vec<Outcome>,
}

/// Builds, from the numbers given out, the batch that is applied with them.
pub type BuildBatch = Box<dyn FnOnce(Sequence) -> Result<Batch> + Send>;
