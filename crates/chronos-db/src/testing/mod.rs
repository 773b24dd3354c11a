//! The suites of the seams, of what they promise and of what that costs: plain async functions that any
//! backend calls.
//!
//! `documents` and `objects` hold the promises, one file a topic; `costs` what calls may cost. They use the
//! public interface of the seams and nothing below it, so that a backend of yours is tested as ours are.

pub mod costs;
pub mod documents;
pub mod objects;
