//! The instrumentation of the local connection, and reports of queries that run elsewhere.

use diesel::connection::{
    CacheSize, Connection, DebugQuery, Instrumentation, InstrumentationEvent,
    get_default_instrumentation,
};
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;

use super::Local;
use super::instrumentation::without_gate;
use crate::bind::sql_of;

impl Local {
    /// The instrumentation that the application has set, without the gate around it, so that it can
    /// be downcast.
    pub(in crate::connection) fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        without_gate(self.connection.instrumentation())
    }

    pub(in crate::connection) fn set_instrumentation(&mut self, user: impl Instrumentation) {
        self.connection.set_instrumentation(self.gate.wrap(user));
    }

    /// Diesel gave the connection its default instrumentation. From here on it is behind the gate.
    pub(in crate::connection) fn gate_default_instrumentation(&mut self) {
        if let Some(default) = get_default_instrumentation() {
            self.set_instrumentation(default);
        }
    }

    pub(in crate::connection) fn set_cache_size(&mut self, size: CacheSize) {
        self.connection.set_prepared_statement_cache_size(size);
        self.reported.set_size(size);
    }

    /// Reports the start of a query that does not run on this connection.
    pub(in crate::connection) fn report_start(&mut self, query: &dyn DebugQuery) {
        self.report(InstrumentationEvent::start_query(query));
    }

    /// Reports the end of a query that did not run on this connection.
    pub(in crate::connection) fn report_finish<R>(
        &mut self,
        query: &dyn DebugQuery,
        result: &QueryResult<R>,
    ) {
        self.report(InstrumentationEvent::finish_query(query, result.as_ref().err()));
    }

    /// Reports that a query is cached, if it is new. Returns its key then, for
    /// [`keep_reported`](Self::keep_reported).
    pub(in crate::connection) fn report_cached<T>(&mut self, query: &T) -> QueryResult<Option<u64>>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let new = self.reported.key(query)?;
        if new.is_some() {
            let sql = sql_of(query)?;
            self.report(InstrumentationEvent::cache_query(&sql));
        }
        Ok(new)
    }

    /// The query with this key is not reported as cached again.
    pub(in crate::connection) fn keep_reported(&mut self, key: Option<u64>) {
        self.reported.keep(key);
    }

    fn report(&mut self, event: InstrumentationEvent<'_>) {
        self.connection.instrumentation().on_connection_event(event);
    }
}
