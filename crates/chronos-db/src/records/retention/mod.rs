//! Retention: which version rows leave the index, and how.
//!
//! `leaving` finds them, `looked` knows when none can have come, `roll_up` puts them into manifests, `prune` takes them out of the index. A row leaves
//! when it is beyond the window of `retention.ver`, its payload is stored, every number up to its own is settled and
//! every follower is past it. The newest row of an item, and what is left of erased items, never leave; those of one item
//! leave lowest version first. Nothing a reader can ask changes its answer, see `records/manifests/`.

mod leaving;
mod looked;
mod prune;
mod report;
mod retainer;
mod roll_up;

pub use self::report::{ManifestInfo, Pruned, RolledUp};
pub(crate) use self::retainer::Retainer;
pub(crate) use self::roll_up::LEVEL_ROWS;
