//! Documents on their way into a version and back: the bytes of item.json and its `_system`, merging,
//! what gets into the index, what is stored as an object of its own.
//!
//! Plain functions over values: nothing here waits for a store.

pub(crate) mod compress;
pub(crate) mod externalize;
pub(crate) mod heavy;
pub(crate) mod indexing;
pub(crate) mod merge;
pub(crate) mod payload;
pub(crate) mod rules;
