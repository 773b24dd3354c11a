//! The suites of the seams, of what they promise and of what that costs: plain async functions that any
//! backend calls.

pub mod costs;
pub mod documents;
pub mod objects;
