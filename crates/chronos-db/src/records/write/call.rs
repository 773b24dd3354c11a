//! One call of the writer.

use super::change::{Change, WriteOptions};
use super::lock::ItemLock;
use crate::records::index::scope::Scope;
use crate::records::model::ItemId;

/// What is to be written, by whom, and as what.
#[derive(Clone, Copy)]
pub(crate) struct WriteCall<'a> {
    pub(crate) id: ItemId,
    pub(crate) change: &'a Change,
    pub(crate) options: &'a WriteOptions,
    /// Whose documents the caller sees.
    pub(crate) scope: &'a Scope,
    /// The lock that the caller holds.
    pub(crate) lock: Option<&'a ItemLock>,
}

impl<'a> WriteCall<'a> {
    pub(super) fn token(&self) -> Option<&'a str> {
        self.lock.map(|lock| lock.token.as_str())
    }
}
