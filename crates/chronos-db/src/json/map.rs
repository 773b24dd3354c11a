//! Objects: members in the order in which they were written.

use std::hash::Hash;
use std::ops::{Index, IndexMut};

use indexmap::{Equivalent, IndexMap, map};

use super::Json;

/// The members of a JSON object, in the order in which they were written.
#[derive(Clone, Default, PartialEq)]
pub struct Map(IndexMap<String, Json>);

impl Map {
    /// An object without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An object without members, with room for some.
    #[must_use]
    pub fn with_capacity(members: usize) -> Self {
        Self(IndexMap::with_capacity(members))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member with this key.
    #[must_use]
    pub fn get<Q: ?Sized + Hash + Equivalent<String>>(&self, key: &Q) -> Option<&Json> {
        self.0.get(key)
    }

    /// The member with this key, to change.
    pub fn get_mut<Q: ?Sized + Hash + Equivalent<String>>(&mut self, key: &Q) -> Option<&mut Json> {
        self.0.get_mut(key)
    }

    /// The key as it is kept, with its member.
    #[must_use]
    pub fn get_key_value<Q: ?Sized + Hash + Equivalent<String>>(&self, key: &Q) -> Option<(&String, &Json)> {
        self.0.get_key_value(key)
    }

    /// Whether there is a member with this key.
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

    /// The members.
    #[must_use]
    pub fn iter(&self) -> map::Iter<'_, String, Json> {
        self.0.iter()
    }

    /// The members, to change.
    pub fn iter_mut(&mut self) -> map::IterMut<'_, String, Json> {
        self.0.iter_mut()
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> map::Keys<'_, String, Json> {
        self.0.keys()
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> map::Values<'_, String, Json> {
        self.0.values()
    }

    /// The values, to change.
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
