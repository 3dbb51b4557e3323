//! The shape of a type as its `Deserialize` describes it: which calls it makes, with which names.
//!
//! The type is asked to read made-up values. An enum reads one variant at a time, so a type is read
//! again until each variant of each enum was read once.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The shape of a type.
pub(super) struct Shape {
    /// With the first variant of each enum, for messages.
    pub(super) text: String,
    /// All of it.
    pub(super) whole: String,
}

/// A string that strings and many parsed types can read.
const STRING: &str = "1970-01-01T00:00:00";
/// Bytes that a UUID can read.
const BYTES: [u8; 16] = [0; 16];
/// The most readings of a type: one for each variant of its enums.
const MAX_READINGS: usize = 1_000;
/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 64;

impl Shape {
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let mut trace = Trace::default();
        let (mut text, mut whole) = (String::new(), String::new());
        for reading in 0..MAX_READINGS {
            let read = trace.read.len();
            // What a type has asked for before it refused a value is its shape as well.
            let _ = T::deserialize(Reader { trace: &mut trace });
            let this = std::mem::take(&mut trace.text);
            whole.push_str(&this);
            whole.push('\n');
            if reading == 0 {
                text = this;
            }
            if trace.read.len() == read {
                break;
            }
            trace.open.clear();
        }
        Self { text, whole }
    }
}

/// What is known of a type so far.
#[derive(Default)]
struct Trace {
    text: String,
    /// The types that are being read, outermost first.
    open: Vec<String>,
    /// The variants that were read, by the enum.
    read: HashSet<(String, u32)>,
    /// Of each enum, a variant that ends: a recursive type is read to its end with it.
    ends: HashMap<String, u32>,
}

impl Trace {
    /// Whether the innermost type is being read within itself.
    fn is_recursive(&self) -> bool {
        let Some((innermost, others)) = self.open.split_last() else { return false };
        others.contains(innermost) || self.open.len() > MAX_DEPTH
    }

    fn choose(&mut self, key: &str, variants: usize) -> Option<u32> {
        let mut all = 0..u32::try_from(variants).unwrap_or(u32::MAX);
        let unread = all.find(|variant| !self.read.contains(&(key.to_owned(), *variant)));
        if let Some(variant) = unread {
            self.read.insert((key.to_owned(), variant));
        }
        unread.or_else(|| self.ends.get(key).copied())
    }
}

/// The reading ends here.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Read<T> = Result<T, Refused>;

struct Reader<'a> {
    trace: &'a mut Trace,
}

impl Reader<'_> {
    fn note(&mut self, text: &str) {
        self.trace.text.push_str(text);
    }

    /// Reads a type with parts: its name, then `parts`.
    fn within<T>(self, name: &str, parts: impl FnOnce(&mut Trace) -> Read<T>) -> Read<T> {
        if self.trace.open.len() > 2 * MAX_DEPTH {
            return Err(Refused);
        }
        self.trace.text.push_str(name);
        self.trace.open.push(name.to_owned());
        let read = parts(self.trace)?;
        self.trace.open.pop();
        Ok(read)
    }
}

/// The values that are a kind of their own.
macro_rules! read_values {
    ($($deserialize:ident $name:literal $visit:ident $value:expr;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
            self.note($name);
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    read_values! {
        deserialize_bool "bool" visit_bool true;
        deserialize_i8 "i8" visit_i8 1;
        deserialize_i16 "i16" visit_i16 1;
        deserialize_i32 "i32" visit_i32 1;
        deserialize_i64 "i64" visit_i64 1;
        deserialize_i128 "i128" visit_i128 1;
        deserialize_u8 "u8" visit_u8 1;
        deserialize_u16 "u16" visit_u16 1;
        deserialize_u32 "u32" visit_u32 1;
        deserialize_u64 "u64" visit_u64 1;
        deserialize_u128 "u128" visit_u128 1;
        deserialize_f32 "f32" visit_f32 1.0;
        deserialize_f64 "f64" visit_f64 1.0;
        deserialize_char "char" visit_char '1';
        deserialize_str "str" visit_borrowed_str STRING;
        deserialize_string "str" visit_borrowed_str STRING;
        deserialize_bytes "bytes" visit_borrowed_bytes &BYTES;
        deserialize_byte_buf "bytes" visit_borrowed_bytes &BYTES;
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        self.note("()");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Read<V::Value> {
        self.note(name);
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        self.note("?");
        if self.trace.is_recursive() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Read<V::Value> {
        self.within(name, |trace| {
            trace.text.push('=');
            visitor.visit_newtype_struct(Reader { trace })
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = usize::from(!self.trace.is_recursive());
        Parts::of(self.trace, left, &[]).between("[", "]", |parts| visitor.visit_seq(parts))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        Parts::of(self.trace, len, &[]).between("(", ")", |parts| visitor.visit_seq(parts))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Read<V::Value> {
        self.within(name, |trace| {
            Parts::of(trace, len, &[]).between("(", ")", |parts| visitor.visit_seq(parts))
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = usize::from(!self.trace.is_recursive());
        Parts::of(self.trace, left, &[]).between("<", ">", |parts| visitor.visit_map(parts))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.within(name, |trace| {
            let parts = Parts::of(trace, fields.len(), fields);
            parts.between("{", "}", |parts| visitor.visit_seq(parts))
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        let key = format!("{name}[{}]", variants.join("|"));
        let variant = self.trace.choose(&key, variants.len()).ok_or(Refused)?;
        self.within(&key, |trace| {
            let chosen = variants.get(variant as usize).copied().unwrap_or_default();
            trace.text.push('.');
            trace.text.push_str(chosen);
            visitor.visit_enum(Variant { trace, variant })
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Read<V::Value> {
        Err(Refused)
    }

    /// The encoding of the arguments cannot do this either: it does not describe itself.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Read<V::Value> {
        Err(Refused)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Read<V::Value> {
        Err(Refused)
    }

    /// As the encoding of the arguments.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a value, one after the other.
struct Parts<'a> {
    trace: &'a mut Trace,
    left: usize,
    fields: &'static [&'static str],
}

impl<'a> Parts<'a> {
    fn of(trace: &'a mut Trace, left: usize, fields: &'static [&'static str]) -> Self {
        Self { trace, left, fields }
    }

    fn between<T>(
        self,
        begin: &str,
        end: &str,
        read: impl FnOnce(Parts<'_>) -> Read<T>,
    ) -> Read<T> {
        let Self { trace, left, fields } = self;
        trace.text.push_str(begin);
        let read = read(Parts { trace: &mut *trace, left, fields })?;
        trace.text.push_str(end);
        Ok(read)
    }

    /// Begins the next part, with its name. `false`: there is none.
    fn next(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        if let Some(field) =
            self.fields.len().checked_sub(self.left).and_then(|i| self.fields.get(i))
        {
            self.trace.text.push_str(field);
            self.trace.text.push(':');
        }
        self.left = left;
        true
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if !self.next() {
            return Ok(None);
        }
        let read = seed.deserialize(Reader { trace: self.trace })?;
        if self.left > 0 {
            self.trace.text.push_str(", ");
        }
        Ok(Some(read))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if !self.next() {
            return Ok(None);
        }
        seed.deserialize(Reader { trace: self.trace }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        self.trace.text.push_str(": ");
        seed.deserialize(Reader { trace: self.trace })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The chosen variant of an enum.
struct Variant<'a> {
    trace: &'a mut Trace,
    variant: u32,
}

impl Variant<'_> {
    /// The variant was read to its end, so its enum is the innermost type again.
    fn ends(trace: &mut Trace, variant: u32) {
        if let Some(key) = trace.open.last() {
            trace.ends.entry(key.clone()).or_insert(variant);
        }
    }

    fn parts<T>(
        self,
        left: usize,
        fields: &'static [&'static str],
        read: impl FnOnce(Parts<'_>) -> Read<T>,
    ) -> Read<T> {
        let Self { trace, variant } = self;
        let parts = Parts::of(&mut *trace, left, fields);
        let read = parts.between("(", ")", read)?;
        Self::ends(trace, variant);
        Ok(read)
    }
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Refused;
    type Variant = Variant<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Read<(V::Value, Self)> {
        let index: U32Deserializer<Refused> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Read<()> {
        Self::ends(self.trace, self.variant);
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        let read = |mut parts: Parts<'_>| parts.next_element_seed(seed);
        self.parts(1, &[], read)?.ok_or_else(|| Refused::custom(""))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        self.parts(len, &[], |parts| visitor.visit_seq(parts))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.parts(fields.len(), fields, |parts| visitor.visit_seq(parts))
    }
}

#[cfg(test)]
mod tests;
