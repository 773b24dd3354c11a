//! The tests of the crate from outside, in one program.

#[cfg(feature = "mongodb")]
mod filter_cases;
#[cfg(feature = "mongodb")]
mod filter_mongo;
