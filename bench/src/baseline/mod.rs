//! The ceilings: what the stores do without the library.

pub(crate) mod mongo;
pub(crate) mod redis;
pub(crate) mod sqlite;
