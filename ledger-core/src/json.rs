//! Canonical JSON: RFC 8785 restricted to strings, integers from 0 below 2^53, booleans,
//! arrays and objects with ASCII keys. No floats, no nulls, no negative numbers.
//!
//! Typed records ([`crate::operation`], [`crate::entry`]) declare their fields in key order, so
//! that serialising them *is* the canonical form; [`Value`] is for documents of unknown type.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess},
};
use thiserror::Error;

/// Integers stay below 2^53, where every JSON reader in the world still agrees on them.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Deeper documents are refused: no entry needs more than four levels.
pub const DEPTH_MAX: usize = 16;

/// A canonical JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// An integer from 0 to [`INTEGER_MAX`].
    Integer(u64),
    /// A Unicode string.
    String(String),
    /// An ordered list.
    Array(Vec<Value>),
    /// Keys in ascending order; ASCII only, so byte order is RFC 8785's UTF-16 order.
    Object(BTreeMap<String, Value>),
}

/// Why bytes are not canonical JSON.
#[derive(Debug, Error)]
pub enum JsonError {
    /// Not JSON, or JSON with something this subset leaves out.
    #[error("not canonical JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Valid, but not the one canonical spelling (white space, key order, escapes).
    #[error("not in canonical form (RFC 8785)")]
    NotCanonical,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

impl Value {
    /// Reads canonical bytes; every other spelling of the same value is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let value: Self = serde_json::from_slice(bytes)?;
        if value.depth() > DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        if to_canonical(&value) == bytes { Ok(value) } else { Err(JsonError::NotCanonical) }
    }

    /// The member `key` of an object.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(map) => map.get(key),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number of an integer.
    #[must_use]
    pub const fn as_integer(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    fn depth(&self) -> usize {
        let inner = match self {
            Self::Array(items) => items.iter().map(Self::depth).max(),
            Self::Object(map) => map.values().map(Self::depth).max(),
            _ => return 0,
        };
        1 + inner.unwrap_or(0)
    }
}

/// Serialises a value whose type upholds the rules of this module (see the module text).
///
/// # Panics
/// Never for the types of this crate: none of them can fail to serialise.
#[must_use]
pub fn to_canonical<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records of this crate serialise")
}

/// Reads a typed record and refuses bytes that are not its canonical form.
pub fn from_canonical<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8]) -> Result<T, JsonError> {
    let value: T = serde_json::from_slice(bytes)?;
    if to_canonical(&value) == bytes { Ok(value) } else { Err(JsonError::NotCanonical) }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Integer(number) => serializer.serialize_u64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(map) => serializer.collect_map(map),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an integer from 0 below 2^53, a boolean, an array or an object")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        if number > INTEGER_MAX {
            return Err(E::invalid_value(de::Unexpected::Unsigned(number), &self));
        }
        Ok(Value::Integer(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<Cow<'_, str>, Value>()? {
            if !key.is_ascii() {
                return Err(de::Error::custom("a key outside ASCII"));
            }
            if members.insert(key.into_owned(), value).is_some() {
                return Err(de::Error::custom("a key twice"));
            }
        }
        Ok(Value::Object(members))
    }
}
