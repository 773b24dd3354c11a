//! Pages and their cursors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bson::{Bson, Document, RawDocument, doc};

use crate::documents::filter::order::value_at;
use crate::documents::{Direction, stored};
use crate::records::model::ItemId;
use crate::records::view::View;
use crate::{Error, Result};

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The items, in order.
    pub items: Vec<View>,
    /// Pass it to [`List::after`](crate::List::after) for the next page; none on the last one.
    pub next: Option<String>,
}

pub(crate) type Order = Vec<(String, Direction)>;

/// The fields by which a stored document stands where it stands in the order.
pub(super) fn sort_keys(order: &Order, stored: &RawDocument) -> Result<Document> {
    stored::decode_part(stored, |field| order.iter().any(|(path, _)| path.split('.').next() == Some(field)))
}

/// The cursor behind the document with these sort keys.
///
/// # Errors
/// `VALIDATION_ERROR` if a sort key is an array there, since an array has no one place in an order.
pub(crate) fn cursor(order: &Order, keys: &Document) -> Result<String> {
    let values: Vec<Bson> = order.iter().map(|(path, _)| value_at(keys, path).cloned().unwrap_or(Bson::Null)).collect();
    let bytes = bson::serialize_to_vec(&doc! { "o": signature(order), "v": values })
        .map_err(|e| Error::validation("the sort keys cannot be written into a cursor").caused_by(e))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Refuses an item that has no one place in the order.
pub(super) fn check_sortable(order: &Order, keys: &Document, id: ItemId) -> Result<()> {
    for (path, _) in order {
        let mut ancestors = path.match_indices('.').map(|(i, _)| &path[..i]).chain(std::iter::once(path.as_str()));
        if let Some(array) = ancestors.find(|part| matches!(value_at(keys, part), Some(Bson::Array(_)))) {
            let property = array.trim_start_matches("metaIndexed.");
            return Err(Error::validation(format!("cannot sort by `{property}`: it is an array in item {id}")));
        }
    }
    Ok(())
}

/// The values to go on after.
///
/// # Errors
/// `VALIDATION_ERROR` if the token was not made for this order.
pub(crate) fn parse_cursor(token: &str, order: &Order) -> Result<Vec<Bson>> {
    let wrong = || Error::validation("this page token was not given out for this list: pass `next` of the page before, with the same sort");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let doc: Document = bson::deserialize_from_slice(&bytes).map_err(|_| wrong())?;
    let values = doc.get_array("v").map_err(|_| wrong())?;
    if doc.get_str("o").ok() != Some(signature(order).as_str()) || values.len() != order.len() {
        return Err(wrong());
    }
    Ok(values.clone())
}

fn signature(order: &Order) -> String {
    order.iter().map(|(path, direction)| format!("{}{path};", if *direction == Direction::Ascending { '+' } else { '-' })).collect()
}
