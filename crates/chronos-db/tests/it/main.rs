//! The tests of the crate, in one binary.

mod object_keys;
mod objects;
