//! What the application's instrumentation sees.

use std::any::TypeId;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{CacheSize, DynInstrumentation, Instrumentation, InstrumentationEvent};
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;

use crate::bind::sql_of;

/// Whether the application's instrumentation sees the events of the local connection. It sees each
/// of the application's queries once, and none of this library's.
#[derive(Debug, Clone, Default)]
pub(super) struct InstrumentationGate(Arc<AtomicBool>);

impl InstrumentationGate {
    /// No event passes until the guard drops.
    pub(super) fn mute(&self) -> Muted {
        Muted { before: self.0.swap(true, Ordering::Relaxed), gate: self.clone() }
    }

    pub(super) fn wrap(&self, user: impl Instrumentation) -> Gated {
        Gated { user: user.into(), gate: self.clone() }
    }
}

/// Opens the gate when it drops, unless an outer guard keeps it shut.
pub(in crate::connection) struct Muted {
    gate: InstrumentationGate,
    before: bool,
}

impl Drop for Muted {
    fn drop(&mut self) {
        self.gate.0.store(self.before, Ordering::Relaxed);
    }
}

/// The application's instrumentation as the local connection holds it.
pub(super) struct Gated {
    user: DynInstrumentation,
    gate: InstrumentationGate,
}

impl Instrumentation for Gated {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if !self.gate.0.load(Ordering::Relaxed) {
            self.user.on_connection_event(event);
        }
    }
}

/// The forwarded statements that a `SqliteConnection` would have in its cache of prepared
/// statements: each is reported as cached once.
///
/// Like Diesel's cache, it identifies a query by its static id or its text, and is unbounded. It
/// stores a hash of each.
#[derive(Debug, Default)]
pub(super) struct ReportedCache {
    seen: HashSet<u64>,
    is_off: bool,
}

impl ReportedCache {
    /// As Diesel's cache: another size empties it.
    pub(super) fn set_size(&mut self, size: CacheSize) {
        let is_off = size == CacheSize::Disabled;
        if self.is_off != is_off {
            *self = Self { is_off, ..Self::default() };
        }
    }

    /// The key of a query that would be cached now; `None` where it is, or never will be.
    pub(super) fn key<T>(&self, query: &T) -> QueryResult<Option<u64>>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        if self.is_off || !query.is_safe_to_cache_prepared(&Sqlite)? {
            return Ok(None);
        }
        let key = match T::query_id() {
            Some(id) => hash::<TypeId>(&id),
            None => hash::<str>(&sql_of(query)?),
        };
        Ok(Some(key).filter(|key| !self.seen.contains(key)))
    }

    pub(super) fn keep(&mut self, key: Option<u64>) {
        self.seen.extend(key);
    }
}

/// The instrumentation that the application has set, without the gate around it, so that it can be
/// downcast.
pub(super) fn without_gate(held: &mut dyn Instrumentation) -> &mut dyn Instrumentation {
    if held.is::<Gated>() {
        let gated = held.downcast_mut::<Gated>().expect("it is one");
        return &mut *gated.user;
    }
    held
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
