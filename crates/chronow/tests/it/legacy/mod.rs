//! The numbered faults of the original, each turned into a promise. A test's comment begins with the numbers
//! it answers; `docs/faults.md` maps every number to its tests, also those of the conformance suite.

mod connection;
mod delivery;
mod locks;
mod mongo_only;
mod producer;
mod shared;
mod topics;
