//! The classes of the statements seen on one connection.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::class::Class;
use super::footprint::Footprint;

/// The most texts in the cache. When it is full it is cleared: queries built at run time could fill
/// a cache of any size.
const MAX_TEXTS: usize = 1_024;

/// The classes of the statements of one connection, by Diesel's static query id, for which no text
/// is built, and by SQL text for the others.
///
/// A change of the main schema is noticed only when a transaction begins on a replica's snapshot.
/// Until then a statement on a view keeps its class if the view is redefined to call a function
/// that writes (`docs/decisions/008-functions-of-the-application.md`).
#[derive(Debug, Default)]
pub(crate) struct ClassCache {
    by_id: HashMap<TypeId, Known, BuildHasherDefault<TypeIdHasher>>,
    by_text: HashMap<String, Class>,
    footprints: HashMap<String, Arc<Footprint>>,
    /// The schema that the footprints are of.
    schema_version: Option<i64>,
}

#[derive(Debug)]
struct Known {
    class: Class,
    is_plain_read: bool,
}

impl ClassCache {
    pub(crate) fn by_id(&self, id: TypeId) -> Option<Class> {
        self.by_id.get(&id).map(|known| known.class)
    }

    /// Whether a statement is known, and [a plain read](Class::is_plain_read).
    #[inline]
    pub(crate) fn is_plain_read(&self, id: TypeId) -> bool {
        self.by_id.get(&id).is_some_and(|known| known.is_plain_read)
    }

    pub(crate) fn by_text(&self, sql: &str) -> Option<Class> {
        self.by_text.get(sql).copied()
    }

    pub(crate) fn put_id(&mut self, id: TypeId, class: Class) {
        if !class.guessed {
            let is_plain_read = class.is_plain_read();
            self.by_id.insert(id, Known { class, is_plain_read });
        }
    }

    pub(crate) fn put_text(&mut self, sql: String, class: Class) {
        if class.guessed {
            return;
        }
        if self.by_text.len() >= MAX_TEXTS {
            self.by_text.clear();
        }
        self.by_text.insert(sql, class);
    }

    pub(crate) fn footprint(&self, sql: &str) -> Option<Arc<Footprint>> {
        self.footprints.get(sql).cloned()
    }

    pub(crate) fn put_footprint(&mut self, sql: String, footprint: Arc<Footprint>) {
        if self.footprints.len() >= MAX_TEXTS {
            self.footprints.clear();
        }
        self.footprints.insert(sql, footprint);
    }

    /// A transaction begins on this schema. Another node may have changed what a name stands for.
    pub(crate) fn set_schema_version(&mut self, version: i64) {
        if self.schema_version.replace(version).is_some_and(|before| before != version) {
            self.clear();
        }
    }

    /// Forgets all classes: a temporary table may hide a table of the database now, or not any
    /// more.
    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
        self.footprints.clear();
        self.by_text.clear();
    }
}

/// A `TypeId` is a hash already.
#[derive(Debug, Default)]
struct TypeIdHasher(u64);

impl Hasher for TypeIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
