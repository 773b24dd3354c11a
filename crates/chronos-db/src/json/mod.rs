//! JSON values of our own: numbers keep their digits, objects their key order.
//!
//! `serde_json` can do both only by features (`arbitrary_precision`, `preserve_order`) that Cargo turns on
//! for the whole program, and that change what its types do in code of others. So these types stand beside
//! it: they are made from anything `Serialize` ([`to_json`]) or from text ([`Json::parse`]), and convert from
//! and to `serde_json::Value`.
//!
//! `parse.rs` is the one parser, `write.rs` the one writer, `value.rs` and `number.rs` what a value is,
//! `typed.rs` and `serialize.rs` the ways from and to types with `serde`; `bson.rs` and `extended.rs` are
//! where JSON and BSON meet. Nothing here knows of stores or configurations.

mod bson;
mod convert;
mod equal;
pub(crate) mod extended;
mod index;
mod macros;
mod number;
mod parse;
mod serialize;
mod typed;
mod value;
mod write;

pub use self::bson::{bson_to_json, json_to_bson, json_to_nearest_bson};
pub use self::index::Key;
pub use self::number::Number;
pub(crate) use self::parse::parse_without;
pub use self::parse::{MAX_DEPTH, ParseError};
#[doc(hidden)]
pub use self::typed::value_of;
pub use self::typed::{TypeError, from_slice, to_json, to_string, to_vec};
pub use self::value::{Json, Map};
