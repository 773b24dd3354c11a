//! What a version did, and where its payload is.

use std::fmt;

/// What a version did to its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// The first version.
    Create,
    /// Another document: an update, replace or enrichment.
    Update,
    /// The item is deleted; the version shares the payload of the one before.
    Delete,
    /// An earlier version came back; the version shares its payload.
    Restore,
    /// The item and all its versions are erased.
    Erase,
    /// A number of the collection that no version took. Never shown.
    Void,
    /// A version of an item that was erased since: its numbers and its time, which stay taken for good. Never
    /// shown.
    Erased,
}

impl Op {
    /// Returns the stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Restore => "RESTORE",
            Self::Erase => "ERASE",
            Self::Void => "VOID",
            Self::Erased => "ERASED",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let all =
            [Self::Create, Self::Update, Self::Delete, Self::Restore, Self::Erase, Self::Void, Self::Erased];
        all.into_iter().find(|op| op.as_str() == text)
    }

    /// Whether such a row has no content: no reader sees it as a version.
    pub(crate) const fn is_bare(self) -> bool {
        matches!(self, Self::Erase | Self::Void | Self::Erased)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the payload of a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// In the version row alone, for now.
    NewNotSynched,
    /// In object storage.
    New,
    /// In object storage; its time in the head has passed.
    Processed,
}

impl State {
    /// Returns the stored name, also shown as `_system.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewNotSynched => "new-not-synched",
            Self::New => "new",
            Self::Processed => "processed",
        }
    }

    /// Rows and heads of the legacy library have no state: their payload was stored first.
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("new-not-synched") => Self::NewNotSynched,
            Some("processed") => Self::Processed,
            _ => Self::New,
        }
    }
}
