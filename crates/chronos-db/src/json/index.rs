//! Looking into values by key and by place.

use std::ops::{Index, IndexMut};

use super::Json;

/// What [`Json::get`] and `json[…]` take: the key of a member, or the place of an element.
pub trait Key: sealed::Sealed {
    #[doc(hidden)]
    fn find<'a>(&self, value: &'a Json) -> Option<&'a Json>;
    #[doc(hidden)]
    fn find_mut<'a>(&self, value: &'a mut Json) -> Option<&'a mut Json>;
    #[doc(hidden)]
    fn find_or_insert<'a>(&self, value: &'a mut Json) -> &'a mut Json;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for str {}
    impl Sealed for String {}
    impl Sealed for usize {}
    impl<T: ?Sized + Sealed> Sealed for &T {}
}

impl Key for str {
    fn find<'a>(&self, value: &'a Json) -> Option<&'a Json> {
        value.as_object()?.get(self)
    }

    fn find_mut<'a>(&self, value: &'a mut Json) -> Option<&'a mut Json> {
        value.as_object_mut()?.get_mut(self)
    }

    fn find_or_insert<'a>(&self, value: &'a mut Json) -> &'a mut Json {
        if value.is_null() {
            *value = Json::Object(super::Map::new());
        }
        match value {
            Json::Object(map) => map.or_null(self),
            other => panic!("the member {self:?} of a value that is not an object: {}", kind(other)),
        }
    }
}

impl Key for usize {
    fn find<'a>(&self, value: &'a Json) -> Option<&'a Json> {
        value.as_array()?.get(*self)
    }

    fn find_mut<'a>(&self, value: &'a mut Json) -> Option<&'a mut Json> {
        value.as_array_mut()?.get_mut(*self)
    }

    fn find_or_insert<'a>(&self, value: &'a mut Json) -> &'a mut Json {
        match value {
            Json::Array(items) => &mut items[*self],
            other => panic!("the element {self} of a value that is not an array: {}", kind(other)),
        }
    }
}

impl Key for String {
    fn find<'a>(&self, value: &'a Json) -> Option<&'a Json> {
        Key::find(self.as_str(), value)
    }

    fn find_mut<'a>(&self, value: &'a mut Json) -> Option<&'a mut Json> {
        self.as_str().find_mut(value)
    }

    fn find_or_insert<'a>(&self, value: &'a mut Json) -> &'a mut Json {
        self.as_str().find_or_insert(value)
    }
}

impl<T: ?Sized + Key> Key for &T {
    fn find<'a>(&self, value: &'a Json) -> Option<&'a Json> {
        (**self).find(value)
    }

    fn find_mut<'a>(&self, value: &'a mut Json) -> Option<&'a mut Json> {
        (**self).find_mut(value)
    }

    fn find_or_insert<'a>(&self, value: &'a mut Json) -> &'a mut Json {
        (**self).find_or_insert(value)
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// `null`, where there is no such member or element.
impl<K: Key> Index<K> for Json {
    type Output = Self;

    fn index(&self, key: K) -> &Self {
        static NULL: Json = Json::Null;
        key.find(self).unwrap_or(&NULL)
    }
}

/// A member that is not there yet becomes `null`, and so can be set; `null` becomes an object.
///
/// # Panics
/// For a member of what is not an object, and an element that is not there.
impl<K: Key> IndexMut<K> for Json {
    fn index_mut(&mut self, key: K) -> &mut Self {
        key.find_or_insert(self)
    }
}

impl Json {
    /// Returns the member of an object, or the element of an array.
    #[must_use]
    pub fn get<K: Key>(&self, key: K) -> Option<&Self> {
        key.find(self)
    }

    /// Returns the member of an object, or the element of an array, to change.
    pub fn get_mut<K: Key>(&mut self, key: K) -> Option<&mut Self> {
        key.find_mut(self)
    }
}
