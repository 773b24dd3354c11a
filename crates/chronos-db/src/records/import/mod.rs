//! Importing a log of changes: items are known by a property, times are kept, and importing the same log
//! again changes nothing.
//!
//! A change is recognised by what it is: its row keeps a digest of its key, time, kind and content, and of
//! how often it came. A change without a time is recognised by its line, if the log has a name.
//!
//! `importer` takes the operations of a log in, `identity` recognises them, `steps` and `plan` say what they
//! come to, `progress` remembers how far a named log was carried out. Versions come about by the writer
//! alone.

mod identity;
mod importer;
mod op;
mod plan;
mod progress;
mod steps;

pub use self::importer::{ImportOutcome, Importer};
pub use self::op::ImportOp;
