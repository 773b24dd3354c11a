//! From and into the types of others.

use std::borrow::Cow;

use serde_json::Value;

use super::{Json, Map, Number};

macro_rules! from_integers {
    ($($integer:ty)*) => {
        $(
            impl From<$integer> for Json {
                fn from(value: $integer) -> Self {
                    Self::Number(value.into())
                }
            }
        )*
    };
}

from_integers!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

/// `null` for infinities and NaN.
impl From<f64> for Json {
    fn from(value: f64) -> Self {
        Number::from_f64(value).map_or(Self::Null, Self::Number)
    }
}

/// `null` for infinities and NaN.
impl From<f32> for Json {
    fn from(value: f32) -> Self {
        Number::from_f32(value).map_or(Self::Null, Self::Number)
    }
}

impl From<()> for Json {
    fn from((): ()) -> Self {
        Self::Null
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Json {
    fn from(text: Cow<'_, str>) -> Self {
        Self::String(text.into_owned())
    }
}

impl From<Number> for Json {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

impl From<Map> for Json {
    fn from(map: Map) -> Self {
        Self::Object(map)
    }
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Json {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Clone + Into<Self>> From<&[T]> for Json {
    fn from(items: &[T]) -> Self {
        items.iter().cloned().collect()
    }
}

impl<T: Into<Self>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>, V: Into<Self>> FromIterator<(K, V)> for Json {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        Self::Object(members.into_iter().collect())
    }
}

impl From<&serde_json::Number> for Number {
    fn from(number: &serde_json::Number) -> Self {
        Self::from_digits(number)
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number((&number).into()),
            Value::String(text) => Self::String(text),
            Value::Array(items) => items.into_iter().collect(),
            Value::Object(map) => map.into_iter().collect(),
        }
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        value.clone().into()
    }
}

impl From<&Self> for Json {
    fn from(value: &Self) -> Self {
        value.clone()
    }
}

/// Numbers other than 64-bit integers become the nearest double (the largest, if they are beyond it), and the
/// order of keys is that of `serde_json::Map`.
impl From<Json> for Value {
    fn from(value: Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) if !number.is_minus_zero() => whole.into(),
                (_, Some(whole)) if !number.is_minus_zero() => whole.into(),
                _ => number.nearest_f64().clamp(f64::MIN, f64::MAX).into(),
            },
            Json::String(text) => Self::String(text),
            Json::Array(items) => items.into_iter().map(Self::from).collect(),
            Json::Object(map) => map.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
        }
    }
}
