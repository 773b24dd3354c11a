//! Which version of an item.

use crate::Timestamp;

/// Which version of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum VersionSelector {
    #[default]
    Latest,
    Ov(i64),
    At(Timestamp),
    Cv(i64),
}
