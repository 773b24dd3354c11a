//! Translation to MongoDB's own filters.
use super::Filter;
use crate::documents::Direction;
use bson::{Bson, Document};
pub(crate) fn to_mongo(_filter: &Filter) -> Document {
    Document::new()
}
/// The filter "strictly after these values in this order", across types.
pub(crate) fn after_to_mongo(_order: &[(String, Direction)], _after: &[Bson]) -> Document {
    Document::new()
}
