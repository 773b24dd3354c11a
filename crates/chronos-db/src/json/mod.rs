//! JSON values of our own: numbers keep their digits, objects their key order.
//!
//! `serde_json` can do both only by features (`arbitrary_precision`, `preserve_order`) that Cargo turns on
//! for the whole program, and that change what its types do in code of others. So these types stand beside
//! it: they are made from anything `Serialize` ([`to_json`]) or from text ([`Json::parse`]), and convert from
//! and to `serde_json::Value`.
//!
//! `parse.rs` is the one parser, `write.rs` the one writer, `number.rs` and `map.rs` the parts of a value,
//! `typed.rs` and `serialize.rs` the ways from and to types with `serde`; `bson.rs` and `extended.rs` are
//! where JSON and BSON meet. Nothing here knows of stores or configurations.

mod bson;
mod convert;
mod equal;
pub(crate) mod extended;
mod index;
mod macros;
mod map;
mod number;
mod parse;
mod serialize;
mod typed;
mod write;

pub use self::bson::{bson_to_json, json_to_bson, json_to_nearest_bson};
pub use self::index::Key;
pub use self::map::Map;
pub use self::number::Number;
pub(crate) use self::parse::parse_without;
pub use self::parse::{MAX_DEPTH, ParseError};
#[doc(hidden)]
pub use self::typed::value_of;
pub use self::typed::{TypeError, from_slice, to_json, to_string, to_vec};

/// A JSON value as a user writes it. Numbers keep every digit, objects their key order.
///
/// Values are equal if they say the same: numbers by their size (`1`, `1.0` and `1e0` are one number),
/// objects whatever the order of their keys. `Display` writes compact JSON, and with `{:#}` JSON over several
/// lines.
///
/// Into and out of other data formats it goes by `Serialize` and `Deserialize`. They know no numbers but
/// 64-bit integers and doubles, so there other numbers become the nearest double. The actions of this
/// library, and [`to_json`], [`to_vec`], [`from_slice`] and [`Json::to`], which they use, keep the digits
/// also of a `Json` that is part of another type (but behind `flatten` and in an untagged or internally
/// tagged enum it is read as a double).
///
/// ```
/// use chronos_db::{Json, json};
/// let order: Json = r#"{"total": 19.90, "id": 123456789012345678901234567890}"#.parse()?;
/// assert_eq!(order.to_string(), r#"{"total":19.90,"id":123456789012345678901234567890}"#);
/// assert_eq!(order["total"], 19.9);
/// assert_eq!(json!({"total": order["total"]}).to_string(), r#"{"total":19.90}"#);
/// # Ok::<(), chronos_db::json::ParseError>(())
/// ```
#[derive(Clone, Default)]
pub enum Json {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(Map),
}

impl Json {
    /// Reads JSON text.
    ///
    /// # Errors
    /// [`ParseError`] for what is not JSON, for a key that stands twice in one object, for text that is not
    /// Unicode (also by `\ud800` alone), and for values nested deeper than [`MAX_DEPTH`].
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, ParseError> {
        parse::parse(text.as_ref())
    }

    /// Leaves `null` and returns what was here.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// The member of an object, or the element of an array.
    #[must_use]
    pub fn get<K: Key>(&self, key: K) -> Option<&Self> {
        key.find(self)
    }

    /// The member of an object, or the element of an array, to change.
    pub fn get_mut<K: Key>(&mut self, key: K) -> Option<&mut Self> {
        key.find_mut(self)
    }

    /// The value at a JSON pointer such as `/orders/0/id`.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').map(unescaped).try_fold(self, |value, token| match value {
            Self::Object(map) => map.get(&token),
            Self::Array(items) => items.get(place(&token)?),
            _ => None,
        })
    }

    /// The value at a JSON pointer, to change.
    pub fn pointer_mut(&mut self, pointer: &str) -> Option<&mut Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').map(unescaped).try_fold(self, |value, token| match value {
            Self::Object(map) => map.get_mut(&token),
            Self::Array(items) => items.get_mut(place(&token)?),
            _ => None,
        })
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is `true` or `false`.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        matches!(self, Self::Bool(_))
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    /// Whether it is a whole number, written as one, of 64 bits with a sign.
    #[must_use]
    pub fn is_i64(&self) -> bool {
        self.as_i64().is_some()
    }

    /// Whether it is a whole number, written as one, of 64 bits without a sign.
    #[must_use]
    pub fn is_u64(&self) -> bool {
        self.as_u64().is_some()
    }

    /// Whether it is a number that is written with a point or an exponent.
    #[must_use]
    pub fn is_f64(&self) -> bool {
        matches!(self, Self::Number(number) if !number.is_whole())
    }

    /// Whether it is a text.
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self, Self::String(_))
    }

    /// Whether it is a list.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// The boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// The whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// The nearest double; none beyond the largest.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number().and_then(Number::as_f64)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The list.
    #[must_use]
    pub fn as_array(&self) -> Option<&Vec<Self>> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The list, to change.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Map> {
        if let Self::Object(map) = self { Some(map) } else { None }
    }

    /// The object, to change.
    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        if let Self::Object(map) = self { Some(map) } else { None }
    }
}

/// A part of a JSON pointer as it stands in the document.
fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The place in an array that a part of a JSON pointer names.
fn place(token: &str) -> Option<usize> {
    if token == "0" || !token.starts_with(['0', '+']) { token.parse().ok() } else { None }
}

impl std::str::FromStr for Json {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
