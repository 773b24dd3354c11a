//! What lies in object storage: `payload_store` reads, writes and removes objects, `flush` stores what was
//! committed, `notes` is what is noted of them, `gc` removes what no version names, `eraser` what was erased,
//! `trim` what is superseded where versions are not kept, `expire` takes heads through time, `buckets` sees to it that a bucket is not made anew
//! in silence, `unnamed` finds objects that nobody noted and no version names.
//!
//! Objects follow the version index; nothing here decides what a version is.

pub(crate) mod buckets;
pub(crate) mod eraser;
pub(crate) mod erasures;
pub(crate) mod expire;
pub(crate) mod flush;
pub(crate) mod gc;
pub(crate) mod notes;
pub(crate) mod payload_store;
pub(crate) mod trim;
pub(crate) mod unnamed;
