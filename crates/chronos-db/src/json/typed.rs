//! Between text and the types of users.
//!
//! `serde` knows no numbers but 64-bit integers and doubles. Where a [`Json`] is (part of) what is written or
//! read here, the digits of its other numbers take a side door: a slot of the thread, filled right before a
//! double passes and emptied right after. Formats of others see the double.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor,
};
use serde::ser::{self, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};

use super::{Json, Number, ParseError};

thread_local! {
    /// Of which double, and its digits.
    static DIGITS: RefCell<Option<(u64, String)>> = const { RefCell::new(None) };
    static ROUNDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `pass` with the double that it hands over, and the digits beside it. Returns whether they were
/// taken, too.
pub(super) fn with_digits<T>(digits: String, double: f64, pass: impl FnOnce(f64) -> T) -> (T, bool) {
    struct Empty;
    impl Drop for Empty {
        fn drop(&mut self) {
            DIGITS.set(None);
        }
    }
    let _also_after_a_panic = Empty;
    DIGITS.set(Some((double.to_bits(), digits)));
    let passed = pass(double);
    (passed, DIGITS.take().is_none())
}

fn take_digits(double: f64) -> Option<String> {
    DIGITS.take().filter(|(bits, _)| *bits == double.to_bits()).map(|(_, digits)| digits)
}

/// The digits of the double that is being handed over. If there are none, what is made of it is rounded.
pub(super) fn digits(double: f64) -> Option<Number> {
    let digits = take_digits(double).and_then(|digits| Number::parse(&digits));
    if digits.is_none() {
        ROUNDED.set(true);
    }
    digits
}

/// Why a value cannot be JSON, or JSON not be a value of a type.
#[derive(Debug)]
pub struct TypeError(serde_json::Error);

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(de::Error::custom(message))
    }
}

impl ser::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(de::Error::custom(message))
    }
}

impl From<ParseError> for TypeError {
    fn from(error: ParseError) -> Self {
        de::Error::custom(error)
    }
}

/// Returns the value that `serde_json` would write, but for numbers of a [`Json`] inside, which stay as they
/// are.
///
/// # Errors
/// [`TypeError`] for what has no JSON (maps whose keys are not text, say), for maps in which a key stands
/// twice, and for values nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Json, TypeError> {
    Ok(Json::parse(to_vec(value)?)?)
}

/// Returns the text that `serde_json` would write, but for numbers of a [`Json`] inside, which stay as they
/// are.
///
/// # Errors
/// [`TypeError`] for what has no JSON: maps whose keys are not text, say.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TypeError> {
    let mut out = Vec::with_capacity(128);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Exact)).map_err(TypeError)?;
    Ok(out)
}

/// Returns what [`to_vec`] returns, as text.
///
/// # Errors
/// As [`to_vec`].
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, TypeError> {
    String::from_utf8(to_vec(value)?).map_err(ser::Error::custom)
}

/// Reads text as `serde_json` does, but for numbers of a [`Json`] inside `T`, which keep their digits.
///
/// # Errors
/// [`TypeError`] for what is not JSON, or not of this type.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, TypeError> {
    ROUNDED.set(false);
    match serde_json::from_slice(text).map_err(TypeError) {
        // Only a `Json` inside `T` has use for digits, and there are few of these.
        Ok(_) if ROUNDED.replace(false) => Json::parse(text)?.to(),
        Ok(read) => Ok(read),
        // Perhaps for a number beyond doubles.
        Err(error) => {
            Json::parse(text).map_err(TypeError::from).and_then(|json| json.to()).map_err(|_| error)
        }
    }
}

/// Does for `json!` what [`to_json`] does.
///
/// # Panics
/// Where `to_json` fails.
#[doc(hidden)]
pub fn value_of<T: Serialize + ?Sized>(value: &T) -> Json {
    to_json(value).unwrap_or_else(|error| panic!("json!: {error}"))
}

struct Exact;

impl Formatter for Exact {
    fn write_f64<W: io::Write + ?Sized>(&mut self, to: &mut W, value: f64) -> io::Result<()> {
        match take_digits(value) {
            Some(digits) => to.write_all(digits.as_bytes()),
            None => CompactFormatter.write_f64(to, value),
        }
    }
}

impl Json {
    /// Reads this value as a type of yours, as `serde_json` would from its text. A [`Json`] inside keeps its
    /// digits.
    ///
    /// # Errors
    /// [`TypeError`] if the value is of another shape.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, TypeError> {
        T::deserialize(self)
    }
}

impl Number {
    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, TypeError> {
        match (self.as_i64(), self.as_u64()) {
            _ if self.is_minus_zero() => {
                with_digits(self.to_string(), -0.0, |double| visitor.visit_f64(double)).0
            }
            // As `serde_json` does it.
            (_, Some(whole)) => visitor.visit_u64(whole),
            (Some(whole), _) => visitor.visit_i64(whole),
            _ => {
                match with_digits(self.to_string(), self.nearest_f64(), |double| visitor.visit_f64(double)) {
                    (_, false) if self.as_f64().is_none() => Err(de::Error::custom("number out of range")),
                    (value, _) => value,
                }
            }
        }
    }
}

macro_rules! by_any {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
                self.deserialize_any(visitor)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &'de Json {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Number(number) => number.visit(visitor),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::Array(items) => {
                let mut items = SeqDeserializer::new(items.iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Json::Object(map) => {
                let mut members = MapDeserializer::new(map.iter().map(|(key, value)| (Name(key), value)));
                let value = visitor.visit_map(&mut members)?;
                members.end()?;
                Ok(value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match self {
            Json::String(variant) => visitor.visit_enum(Enum { variant, value: None }),
            Json::Object(map) if map.len() == 1 => match map.iter().next() {
                Some((variant, value)) => visitor.visit_enum(Enum { variant, value: Some(value) }),
                None => Err(de::Error::custom("expected an enum")),
            },
            _ => {
                Err(de::Error::custom("expected the name of a variant, or an object with it as the only key"))
            }
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    by_any! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map deserialize_identifier
    }
}

impl<'de> IntoDeserializer<'de, TypeError> for &'de Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A key, which is also read as the number or boolean that it spells, where one is expected.
struct Name<'de>(&'de str);

impl<'de> IntoDeserializer<'de, TypeError> for Name<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! spelled {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
                match (self.0, Number::parse(self.0)) {
                    ("true", _) => visitor.visit_bool(true),
                    ("false", _) => visitor.visit_bool(false),
                    (_, Some(number)) => number.visit(visitor),
                    (text, None) => visitor.visit_borrowed_str(text),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Name<'de> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_enum(Enum { variant: self.0, value: None })
    }

    spelled! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Enum<'de> {
    variant: &'de str,
    value: Option<&'de Json>,
}

impl<'de> EnumAccess<'de> for Enum<'de> {
    type Error = TypeError;
    type Variant = VariantContent<'de>;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, VariantContent<'de>), TypeError> {
        let name: StrDeserializer<'de, TypeError> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, VariantContent(self.value)))
    }
}

struct VariantContent<'de>(Option<&'de Json>);

impl<'de> VariantContent<'de> {
    fn value(self) -> Result<&'de Json, TypeError> {
        self.0.ok_or_else(|| de::Error::custom("a variant without its content"))
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'de> {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        self.0.map_or(Ok(()), <()>::deserialize)
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, TypeError> {
        seed.deserialize(self.value()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, TypeError> {
        self.value()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.value()?.deserialize_any(visitor)
    }
}
