//! The chronos program.
fn main() {}
