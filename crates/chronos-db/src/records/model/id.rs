//! Identifiers of items.

use std::fmt;
use std::str::FromStr;

use bson::Bson;
use bson::oid::ObjectId;

use crate::{Error, Result};

/// The identifier of an item, given out at its creation: 24 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(ObjectId);

impl ItemId {
    pub(crate) const fn new(id: ObjectId) -> Self {
        Self(id)
    }

    pub(crate) const fn object_id(self) -> ObjectId {
        self.0
    }

    pub(crate) fn bson(self) -> Bson {
        Bson::ObjectId(self.0)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ItemId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        ObjectId::parse_str(text).map(Self).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Error::validation(format!("`{}` is not an item id: 24 hex digits are", shown.escape_debug()))
        })
    }
}
