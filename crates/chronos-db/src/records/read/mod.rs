//! Reading versions: the index says what there is, the payload comes from memory, the row or the object
//! storage.
//!
//! `reader` finds one version and its bytes, `show` makes what a caller sees of it, `list` makes pages:
//! `query` is what was asked, `plan` what is asked of the store, `list_scan` the items in their order, `page`
//! cursors. `rules` holds a version's document against counter rules. `unversioned` answers where versions are not kept, `unknown` tells names that nobody has, `values` reads what is computed over all items. Nothing
//! is written.

mod list;
mod list_scan;
mod page;
mod plan;
mod query;
mod reader;
mod rules;
mod show;
mod unknown;
mod unversioned;
mod values;
mod whole;

pub(crate) use self::page::{Order, cursor, parse_cursor};
pub(crate) use self::query::Query;
pub(crate) use self::reader::{ReadOptions, Reader, ResolvedVersion};
pub(crate) use self::show::unless_erased;
pub(crate) use self::values::{ItemValues, ValuesQuery};
