//! The integration tests: one binary.

mod mongo;
