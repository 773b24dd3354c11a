//! Manifests: version rows that left the index, in objects.
//!
//! A manifest holds rows sorted by (itemId, ov), as JSON lines in consecutive gzip members; its entry in
//! `<c>_manifests` says where each member begins, so that one ranged read finds an item's rows. Which
//! manifests are in use stands in one document, [`Live`](live), which is switched by compare-and-swap: a
//! roll-up, a merge and an erasure exclude each other by it, and a reader sees all of a switch or nothing.
//!
//! `entry` is what is said of one manifest, `live` which there are, `line` and `pack` the format, `store` puts
//! and removes objects, `root` is the worker, `find` reads one item, `walk` all of them in order, `by_cv` in the order of their
//! numbers, `rewrite` is for erasures. Which rows leave, and when, is decided in `records/retention/`.
//!
//! A reader looks at the rows of the index first and at manifests after that. What is not in the index any more by then
//! was in a manifest before.

mod by_cv;
mod check;
pub(crate) mod entry;
mod find;
mod line;
pub(crate) mod live;
pub(crate) mod pack;
mod rewrite;
mod root;
pub(crate) mod store;
#[cfg(all(test, feature = "embedded"))]
mod tests;
pub(crate) mod walk;

pub(crate) use self::entry::ManifestEntry;
pub(crate) use self::live::{Live, Switch};
pub(crate) use self::root::Manifests;
pub(crate) use self::store::Writing;
pub(crate) use self::walk::ManifestWalk;
