//! A connection that records the statements that Diesel builds for a query instead of running them.

use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, ConnectionSealed, DynInstrumentation,
    Instrumentation, SimpleConnection,
};
use diesel::query_builder::{AstPass, MoveableBindCollector, QueryBuilder, QueryFragment, QueryId};
use diesel::query_dsl::methods::ExecuteDsl;
use diesel::result::{ConnectionError, ConnectionResult, QueryResult};
use diesel::sqlite::{Sqlite, SqliteQueryBuilder};

use crate::bind::sql_of;
use crate::bind::{BindCollector, Binds};

/// Records statements and runs none.
///
/// The rows of a batch with ON CONFLICT are private to Diesel. Its own `execute` turns such a batch
/// into statements on any connection to SQLite, so it is run on this one.
pub struct Recorder {
    statements: Vec<Recorded>,
    manager: AnsiTransactionManager,
    instrumentation: DynInstrumentation,
}

impl Recorder {
    /// The inserts that Diesel makes of `query`; none for a batch without rows.
    pub(crate) fn record<Q: ExecuteDsl<Self, Sqlite>>(query: Q) -> QueryResult<Vec<Recorded>> {
        let mut recorder = Self {
            statements: Vec::new(),
            manager: AnsiTransactionManager::default(),
            instrumentation: DynInstrumentation::none(),
        };
        Q::execute(query, &mut recorder)?;
        // Of a batch without rows Diesel makes a SELECT that finds nothing.
        recorder.statements.retain(|statement| !statement.sql.starts_with("SELECT "));
        Ok(recorder.statements)
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl SimpleConnection for Recorder {
    /// BEGIN and COMMIT around the rows: the recorded statements run in one transaction anyway.
    fn batch_execute(&mut self, _: &str) -> QueryResult<()> {
        Ok(())
    }
}

impl ConnectionSealed for Recorder {}

impl Connection for Recorder {
    type Backend = Sqlite;
    type TransactionManager = AnsiTransactionManager;

    fn establish(_: &str) -> ConnectionResult<Self> {
        Err(ConnectionError::BadConnection("a recorder is connected to nothing".into()))
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        self.statements.push(Recorded::of(source)?);
        Ok(0)
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        &mut self.manager
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        &mut *self.instrumentation
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.instrumentation = instrumentation.into();
    }

    fn set_prepared_statement_cache_size(&mut self, _: CacheSize) {}
}

/// The text of a statement and what it binds.
pub(crate) struct Recorded {
    sql: String,
    binds: Binds,
    cacheable: bool,
}

impl Recorded {
    fn of<T: QueryFragment<Sqlite>>(query: &T) -> QueryResult<Self> {
        let mut collector = BindCollector::default();
        query.collect_binds(&mut collector, &mut (), &Sqlite)?;
        let cacheable = query.is_safe_to_cache_prepared(&Sqlite)?;
        Ok(Self { sql: sql_of(query)?, binds: collector.moveable(), cacheable })
    }
}

impl QueryFragment<Sqlite> for Recorded {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_bind_collector_data(&self.binds)
    }

    fn to_sql(&self, out: &mut SqliteQueryBuilder, _: &Sqlite) -> QueryResult<()> {
        out.push_sql(&self.sql);
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, _: &Sqlite) -> QueryResult<bool> {
        Ok(self.cacheable)
    }
}

/// A statement with a clause behind it, such as RETURNING.
pub(crate) struct WithClause<'a, C> {
    pub(crate) statement: Recorded,
    pub(crate) clause: &'a C,
}

impl<C: QueryFragment<Sqlite>> QueryFragment<Sqlite> for WithClause<'_, C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.statement.walk_ast(out.reborrow())?;
        self.clause.walk_ast(out)
    }

    fn to_sql(&self, out: &mut SqliteQueryBuilder, backend: &Sqlite) -> QueryResult<()> {
        self.statement.to_sql(out, backend)?;
        self.clause.to_sql(out, backend)
    }

    fn is_safe_to_cache_prepared(&self, backend: &Sqlite) -> QueryResult<bool> {
        Ok(self.statement.cacheable && self.clause.is_safe_to_cache_prepared(backend)?)
    }
}
