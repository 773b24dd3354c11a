//! Values and objects: each is made of the other.

use std::hash::Hash;
use std::ops::{Index, IndexMut};

use indexmap::{Equivalent, IndexMap, map};

use super::number::Number;

/// A JSON value as a user writes it. Numbers keep every digit, objects their key order.
///
/// Values are equal if they say the same: numbers by their size (`1`, `1.0` and `1e0` are one number),
/// objects whatever the order of their keys. `Display` writes compact JSON, and with `{:#}` JSON over several
/// lines.
///
/// Into and out of other data formats it goes by `Serialize` and `Deserialize`. They know no numbers but
/// 64-bit integers and doubles, so there other numbers become the nearest double. The actions of this
/// library, and [`to_json`](super::to_json), [`to_vec`](super::to_vec),
/// [`from_slice`](super::from_slice) and [`Json::to`], which they use, keep the digits
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
    /// Leaves `null` and returns what was here.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Returns the value at a JSON pointer such as `/orders/0/id`.
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

    /// Returns the value at a JSON pointer, to change.
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

    /// Returns whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Returns whether it is `true` or `false`.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        matches!(self, Self::Bool(_))
    }

    /// Returns whether it is a number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    /// Returns whether it is a whole number, written as one, of 64 bits with a sign.
    #[must_use]
    pub fn is_i64(&self) -> bool {
        self.as_i64().is_some()
    }

    /// Returns whether it is a whole number, written as one, of 64 bits without a sign.
    #[must_use]
    pub fn is_u64(&self) -> bool {
        self.as_u64().is_some()
    }

    /// Returns whether it is a number that is written with a point or an exponent.
    #[must_use]
    pub fn is_f64(&self) -> bool {
        matches!(self, Self::Number(number) if !number.is_whole())
    }

    /// Returns whether it is a text.
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self, Self::String(_))
    }

    /// Returns whether it is a list.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    /// Returns whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Returns the boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// Returns the number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// Returns the whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number().and_then(Number::as_i64)
    }

    /// Returns the whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number().and_then(Number::as_u64)
    }

    /// Returns the nearest double; none beyond the largest.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number().and_then(Number::as_f64)
    }

    /// Returns the text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Returns the list, if it is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&Vec<Self>> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// Returns the list, to change, if it is one.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// Returns the object, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Map> {
        if let Self::Object(map) = self { Some(map) } else { None }
    }

    /// Returns the object, to change, if it is one.
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

/// The members of a JSON object, in the order in which they were written.
#[derive(Clone, Default, PartialEq)]
pub struct Map(IndexMap<String, Json>);

impl Map {
    /// Makes an object without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an object without members, with room for some.
    #[must_use]
    pub fn with_capacity(members: usize) -> Self {
        Self(IndexMap::with_capacity(members))
    }

    /// Returns how many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the member with this key.
    #[must_use]
    pub fn get<Q: ?Sized + Hash + Equivalent<String>>(&self, key: &Q) -> Option<&Json> {
        self.0.get(key)
    }

    /// Returns the member with this key, to change.
    pub fn get_mut<Q: ?Sized + Hash + Equivalent<String>>(&mut self, key: &Q) -> Option<&mut Json> {
        self.0.get_mut(key)
    }

    /// Returns the key as it is kept, with its member.
    #[must_use]
    pub fn get_key_value<Q: ?Sized + Hash + Equivalent<String>>(&self, key: &Q) -> Option<(&String, &Json)> {
        self.0.get_key_value(key)
    }

    /// Returns whether there is a member with this key.
    #[must_use]
    pub fn contains_key<Q: ?Sized + Hash + Equivalent<String>>(&self, key: &Q) -> bool {
        self.0.contains_key(key)
    }

    /// Sets a member: in its place if it exists, else as the last. Returns what was there.
    pub fn insert(&mut self, key: String, value: Json) -> Option<Json> {
        self.0.insert(key, value)
    }

    /// The member with this key, which is `null` if there was none.
    pub(super) fn or_null(&mut self, key: &str) -> &mut Json {
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), Json::Null);
        }
        &mut self.0[key]
    }

    /// Removes a member; the others keep their order.
    pub fn remove<Q: ?Sized + Hash + Equivalent<String>>(&mut self, key: &Q) -> Option<Json> {
        self.0.shift_remove(key)
    }

    /// Keeps only members for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&String, &mut Json) -> bool) {
        self.0.retain(keep);
    }

    /// Removes all members.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Iterates over the members.
    #[must_use]
    pub fn iter(&self) -> map::Iter<'_, String, Json> {
        self.0.iter()
    }

    /// Iterates over the members, to change them.
    pub fn iter_mut(&mut self) -> map::IterMut<'_, String, Json> {
        self.0.iter_mut()
    }

    /// Iterates over the keys.
    #[must_use]
    pub fn keys(&self) -> map::Keys<'_, String, Json> {
        self.0.keys()
    }

    /// Iterates over the values.
    #[must_use]
    pub fn values(&self) -> map::Values<'_, String, Json> {
        self.0.values()
    }

    /// Iterates over the values, to change them.
    pub fn values_mut(&mut self) -> map::ValuesMut<'_, String, Json> {
        self.0.values_mut()
    }
}

/// `null`, where there is no such member.
impl Index<&str> for Map {
    type Output = Json;

    fn index(&self, key: &str) -> &Json {
        static NULL: Json = Json::Null;
        self.0.get(key).unwrap_or(&NULL)
    }
}

impl IndexMut<&str> for Map {
    fn index_mut(&mut self, key: &str) -> &mut Json {
        self.or_null(key)
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a String, &'a Json);
    type IntoIter = map::Iter<'a, String, Json>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = (&'a String, &'a mut Json);
    type IntoIter = map::IterMut<'a, String, Json>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

impl IntoIterator for Map {
    type Item = (String, Json);
    type IntoIter = map::IntoIter<String, Json>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<String>, V: Into<Json>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        Self(members.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Extend<(String, Json)> for Map {
    fn extend<I: IntoIterator<Item = (String, Json)>>(&mut self, members: I) {
        self.0.extend(members);
    }
}
