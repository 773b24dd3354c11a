//! The tests of the crate from outside, in one program.

mod filter_cases;
mod filter_mongo;
