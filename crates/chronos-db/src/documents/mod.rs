//! What a document store must do, in few words: [`DocumentStore`].
//!
//! The seam speaks of documents with an `_id`, guarded writes, ordered scans and sequences; it has no update
//! operators, so that no implementation becomes an imitation of another. All domain logic stands above it,
//! once. [`crate::testing::documents`] is the suite every implementation passes.
//!
//! `store.rs` is the trait, `write.rs`, `scan.rs` and `index.rs` are its vocabulary, `filter/` the one filter
//! language; `embedded/` and `mongo/` implement it and know nothing of each other. `raw_bson.rs` and
//! `paging.rs` are what both share. Nothing here knows of records, messages or object storage.

mod deployment;
mod direction;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod filter;
mod index;
#[cfg(feature = "mongodb")]
pub mod mongo;
mod namespace;
mod observed;
#[cfg(any(feature = "embedded", feature = "mongodb"))]
pub(crate) mod paging;
mod path;
pub(crate) mod raw_bson;
mod scan;
mod store;
mod whole;
pub(crate) mod within;
mod write;

pub use deployment::Deployment;
pub use direction::Direction;
pub use filter::Filter;
pub use index::Index;
pub use namespace::Namespace;
pub(crate) use observed::ObservedDocuments;
pub use scan::{Newest, Scan};
pub use store::{Capabilities, DocumentStore, Rights};
pub use whole::whole;
pub(crate) use whole::whole_raw;
pub use within::within;
pub use write::{
    Atomicity, Batch, BuildBatch, Guard, NewDocument, Numbered, Operation, Outcome, Sequence, Write,
};
