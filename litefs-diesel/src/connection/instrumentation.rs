//! Between the application's instrumentation and the local connection.

use std::any::TypeId;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{
    CacheSize, Connection, DebugQuery, DynInstrumentation, Instrumentation, InstrumentationEvent,
};
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;

use super::LiteFsConnection;
use crate::access::Class;
use crate::bind::sql_of;

/// Whether the user's instrumentation hears what happens on the local connection. It hears the
/// user's queries, once, and none of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Silence(Arc<AtomicBool>);

impl Silence {
    /// Until the guard drops, nothing is heard.
    pub(super) fn keep(&self) -> Silent {
        Silent { before: self.0.swap(true, Ordering::Relaxed), silence: self.clone() }
    }

    pub(super) fn gate(&self, user: impl Instrumentation) -> Gate {
        Gate { user: user.into(), silence: self.clone() }
    }
}

/// Ends the silence, unless an outer one goes on.
pub(super) struct Silent {
    silence: Silence,
    before: bool,
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.silence.0.store(self.before, Ordering::Relaxed);
    }
}

/// The user's instrumentation as the local connection holds it.
pub(super) struct Gate {
    user: DynInstrumentation,
    silence: Silence,
}

impl Instrumentation for Gate {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if !self.silence.0.load(Ordering::Relaxed) {
            self.user.on_connection_event(event);
        }
    }
}

/// The instrumentation that the user has set, without our gate around it, so that it can be
/// downcast.
pub(super) fn users(held: &mut dyn Instrumentation) -> &mut dyn Instrumentation {
    if held.is::<Gate>() {
        let gate = held.downcast_mut::<Gate>().expect("it is one");
        return &mut *gate.user;
    }
    held
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
    fn key<T>(&self, query: &T) -> QueryResult<Option<u64>>
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
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl LiteFsConnection {
    /// Reports a query to the user's instrumentation as Diesel reports one of its own: its start,
    /// that it is cached if it is new, its end.
    pub(super) fn reporting<T, R>(
        &mut self,
        class: Class,
        query: &T,
        run: impl FnOnce(&mut Self) -> QueryResult<R>,
    ) -> QueryResult<R>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let debug = diesel::debug_query::<Sqlite, _>(query);
        self.reporting_text(&debug, |conn| {
            let new = conn.reported_cache.key(query)?;
            if new.is_some() {
                let sql = sql_of(query)?;
                conn.local
                    .instrumentation()
                    .on_connection_event(InstrumentationEvent::cache_query(&sql));
            }
            let result = run(conn);
            // What cannot be prepared is not cached.
            conn.reported_cache.seen.extend(new.filter(|_| result.is_ok() || !class.guessed));
            result
        })
    }

    /// Reports the start and the end of something that Diesel does not cache.
    pub(super) fn reporting_text<R>(
        &mut self,
        query: &dyn DebugQuery,
        run: impl FnOnce(&mut Self) -> QueryResult<R>,
    ) -> QueryResult<R> {
        self.local.instrumentation().on_connection_event(InstrumentationEvent::start_query(query));
        let result = run(self);
        let event = InstrumentationEvent::finish_query(query, result.as_ref().err());
        self.local.instrumentation().on_connection_event(event);
        result
    }
}
