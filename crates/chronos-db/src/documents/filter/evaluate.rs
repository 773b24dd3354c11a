//! The definition of the language: what a filter means for a document in memory.
use super::Filter;
use bson::Document;
impl Filter {
    /// Whether `document` matches.
    #[must_use]
    pub fn matches(&self, _document: &Document) -> bool {
        true
    }
}
