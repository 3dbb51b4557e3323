//! SQLite's values.

use serde::{Deserialize, Serialize};

/// One SQLite value, exactly as SQLite stores it (<https://www.sqlite.org/datatype3.html>).
///
/// Floating point values keep their bits (infinities, `-0.0`); SQLite itself turns NaN into NULL.
/// Text may hold NUL characters. Nothing is converted on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed 64 bit integer.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// Text in UTF-8.
    Text(String),
    /// Bytes.
    Blob(#[serde(with = "blob")] Vec<u8>),
}

impl Value {
    /// The bytes that this value adds to a message, approximately, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Value::Null => 4,
            Value::Integer(_) | Value::Real(_) => 12,
            Value::Text(text) => 12 + text.len(),
            Value::Blob(bytes) => 12 + bytes.len(),
        }
    }
}

/// Encodes blobs as byte strings: serde's default would visit each byte separately.
mod blob {
    use serde::{Deserializer, Serializer, de::Visitor};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, v: &[u8]) -> Result<Vec<u8>, E> {
                Ok(v.to_vec())
            }
            fn visit_byte_buf<E>(self, v: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(v)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}
