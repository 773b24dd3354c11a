//! The translations, for tests against a real server.

use bson::{Bson, Document};

use super::Filter;
use crate::documents::Direction;

/// The filter a MongoDB server answers as [`Filter::matches`] does.
#[must_use]
pub fn to_mongo(filter: &Filter) -> Document {
    super::to_mongo(filter)
}

/// The MongoDB filter "strictly after these values in this order".
#[must_use]
pub fn after_to_mongo(order: &[(String, Direction)], after: &[Bson]) -> Document {
    super::after_to_mongo(order, after)
}
