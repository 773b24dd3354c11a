//! When values are equal.

use std::hash::{BuildHasher, Hasher as _};

use serde_json::Value;

use super::{Json, Map, Number};

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Json {}

impl Json {
    /// A number that is the same for equal values, and by the chance of `state` another for others.
    pub(crate) fn fingerprint(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        match self {
            Self::Null => hasher.write_u8(0),
            Self::Bool(value) => hasher.write_u8(1 + u8::from(*value)),
            Self::Number(number) => {
                hasher.write_u8(3);
                std::hash::Hash::hash(number, &mut hasher);
            }
            Self::String(text) => {
                hasher.write_u8(4);
                hasher.write(text.as_bytes());
            }
            Self::Array(items) => {
                hasher.write_u8(5);
                items.iter().for_each(|item| hasher.write_u64(item.fingerprint(state)));
            }
            Self::Object(map) => {
                hasher.write_u8(6);
                // The order of keys does not matter, so neither does that of the sum.
                let sum = map.iter().fold(0_u64, |sum, (key, value)| {
                    sum.wrapping_add(state.hash_one((key, value.fingerprint(state))))
                });
                hasher.write_u64(sum);
            }
        }
        hasher.finish()
    }
}

impl PartialEq<Value> for Json {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Number(a), Value::Number(b)) => *a == Number::from(b),
            (Self::String(a), Value::String(b)) => a == b,
            (Self::Array(a), Value::Array(b)) => a == b,
            (Self::Object(a), Value::Object(b)) => *a == *b,
            _ => false,
        }
    }
}

impl PartialEq<Json> for Value {
    fn eq(&self, other: &Json) -> bool {
        other == self
    }
}

impl PartialEq<serde_json::Map<String, Value>> for Map {
    fn eq(&self, other: &serde_json::Map<String, Value>) -> bool {
        self.len() == other.len()
            && other.iter().all(|(key, value)| self.get(key).is_some_and(|mine| mine == value))
    }
}

macro_rules! equal {
    ($($other:ty: |$json:ident, $it:ident| $equal:expr;)*) => {
        $(
            impl PartialEq<$other> for Json {
                fn eq(&self, other: &$other) -> bool {
                    let ($json, $it) = (self, other);
                    $equal
                }
            }

            impl PartialEq<$other> for &Json {
                fn eq(&self, other: &$other) -> bool {
                    **self == *other
                }
            }

            impl PartialEq<Json> for $other {
                fn eq(&self, other: &Json) -> bool {
                    *other == *self
                }
            }
        )*
    };
}

equal! {
    str: |json, it| json.as_str() == Some(it);
    String: |json, it| json.as_str() == Some(it.as_str());
    bool: |json, it| json.as_bool() == Some(*it);
    f32: |json, it| json.as_f64() == Some(f64::from(*it));
    f64: |json, it| json.as_f64() == Some(*it);
}

impl PartialEq<&str> for Json {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == Some(*other)
    }
}

impl PartialEq<Json> for &str {
    fn eq(&self, other: &Json) -> bool {
        other == self
    }
}

macro_rules! equal_integers {
    ($($integer:ty)*) => {
        equal! { $($integer: |json, it| json.as_number() == Some(&Number::from(*it));)* }
    };
}

equal_integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);
