//! A query that returns rows.

use std::sync::Arc;

use diesel::connection::LoadConnection;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::{Sqlite, SqliteConnection};
use litefs_rpc::sqlite::{BoundQuery, collect};
use litefs_rpc::wire::{Command, Output, Reply, RowSet, Statement};

use super::super::LiteFsConnection;
use super::super::cursor::Cursor;
use super::super::decide::destination::Destination;
use super::super::driver::Job;
use crate::access::{Access, Class};
use crate::bind::sql_of;
use crate::error::called;
use crate::failure::Failure;
use crate::node::Node;
use crate::node::diagnosis::explained;

struct QueryJob<'a, T> {
    query: &'a T,
}

/// The result of a query.
enum Loaded {
    /// Its rows, collected.
    Rows(RowSet),
    /// The query only reads: its rows are read one by one, from this node's file.
    Stream,
}

impl<T> Job for QueryJob<'_, T>
where
    T: Query + QueryFragment<Sqlite> + QueryId,
    Sqlite: QueryMetadata<T::SqlType>,
{
    type Done = Loaded;
    const MAY_BE_GROUPED: bool = true;

    fn sql(&self) -> QueryResult<String> {
        sql_of(self.query)
    }

    fn command(&self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Option<Command>> {
        conn.capture(class, self.query).map(Command::Query).map(Some)
    }

    /// The rows of a query that writes are collected before the first is returned: LiteFS may
    /// reject the commit after SQLite has returned rows, and `query_only` is lifted no longer than
    /// that.
    fn run_here(&mut self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Loaded> {
        if conn.session.answers_differ(class) {
            let statement = conn.capture(class, self.query)?;
            let rows = conn
                .in_place_of(class, self.query, |conn| load_bound(conn.local.sqlite(), &statement));
            return rows.map(Loaded::Rows);
        }
        if class.access == Access::Write || class.may_write() || class.writes_locally {
            return collected(conn.local.sqlite().load(self.query)?).map(Loaded::Rows);
        }
        Ok(Loaded::Stream)
    }

    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<Loaded>> {
        let reply = conn.dispatch_query(node, class, destination, self.query, Command::Query)?;
        reply.map(|reply| rows(reply).map(Loaded::Rows)).transpose()
    }
}

fn load_bound(local: &mut SqliteConnection, statement: &Statement) -> QueryResult<RowSet> {
    collected(local.load(BoundQuery::new(&statement.sql, &statement.params, false))?)
}

fn collected<'conn, 'query>(
    rows: <SqliteConnection as LoadConnection>::Cursor<'conn, 'query>,
) -> QueryResult<RowSet> {
    collect(rows, usize::MAX).map_err(|refusal| called(refusal.into(), None))
}

/// The rows of a reply.
fn rows(reply: Reply) -> QueryResult<RowSet> {
    match reply.answer {
        Output::Rows(rows) => Ok(rows),
        other => {
            Err(Failure::Protocol.error(format!("asked for rows, the primary answered {other:?}")))
        }
    }
}

/// Reads a file on LiteFS.
#[inline]
pub(in crate::connection) fn read<'conn, 'query, T>(
    local: &'conn mut SqliteConnection,
    node: Option<&'conn Arc<Node>>,
    source: T,
) -> QueryResult<Cursor<'conn, 'query>>
where
    T: Query + QueryFragment<Sqlite> + QueryId + 'query,
    Sqlite: QueryMetadata<T::SqlType>,
{
    match local.load(source) {
        Ok(rows) => Ok(Cursor::new(rows, node)),
        Err(error) => Err(match node {
            Some(node) => explained(node, error),
            None => error,
        }),
    }
}

impl LiteFsConnection {
    /// Loads what cannot take the fast path. A function of its own, so that the fast path does not
    /// pay for its frame.
    #[inline(never)]
    pub(in crate::connection) fn slow_path<'conn, 'query, T>(
        &'conn mut self,
        node: Arc<Node>,
        source: T,
    ) -> QueryResult<Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Sqlite> + QueryId + 'query,
        Sqlite: QueryMetadata<T::SqlType>,
    {
        self.before_statement(&node)?;
        let class = self.class_of(&source)?;
        if class.query_only {
            let rows = self.local.query_only_pragma(&sql_of(&source)?)?;
            return self.replay(rows);
        }
        if class.control {
            self.script_or_migration(&node, &sql_of(&source)?)?;
            return self.replay(RowSet::default());
        }
        match self.drive(&node, class, &mut QueryJob { query: &source })? {
            Loaded::Rows(rows) => self.replay(rows),
            Loaded::Stream => read(self.local.sqlite(), self.remote.node(), source),
        }
    }

    fn replay<'conn, 'query>(&'conn mut self, rows: RowSet) -> QueryResult<Cursor<'conn, 'query>> {
        Ok(Cursor::new(self.bind.replay(rows)?, None))
    }
}
