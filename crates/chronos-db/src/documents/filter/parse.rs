//! From JSON to a checked filter.
use super::Filter;
use crate::{Json, Result};

/// Parses a filter (helper fills in).
pub fn parse(_filter: &Json, _resolve: &mut dyn FnMut(&str) -> Result<String>) -> Result<Filter> {
    Ok(Filter::All)
}
