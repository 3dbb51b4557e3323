//! A statement that returns no rows.

use std::sync::Arc;

use diesel::connection::Connection;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::BoundQuery;
use litefs_rpc::wire::{Command, Output, Repeated, Reply, Statement};

use super::super::LiteFsConnection;
use super::super::decide::destination::Destination;
use super::super::decide::phase::Phase;
use super::super::driver::Job;
use crate::access::Class;
use crate::bind::sql_of;
use crate::node::Node;

/// More rows than this in one INSERT are sent as one statement with many sets of parameters.
const FEW_ROWS: usize = 16;

struct ExecuteJob<'a, T> {
    query: &'a T,
}

/// How many rows a statement has changed, as SQLite or the primary says.
enum Changed {
    Here(usize),
    There(usize),
}

impl<T> Job for ExecuteJob<'_, T>
where
    T: QueryFragment<Sqlite> + QueryId,
{
    type Done = Changed;
    const MAY_BE_GROUPED: bool = true;

    fn sql(&self) -> QueryResult<String> {
        sql_of(self.query)
    }

    fn command(&self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Option<Command>> {
        conn.capture(class, self.query).map(command).map(Some)
    }

    fn run_here(&mut self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<Changed> {
        if !conn.session.answers_differ(class) {
            return conn.local.sqlite().execute_returning_count(self.query).map(Changed::Here);
        }
        let statement = conn.capture(class, self.query)?;
        let execute = |conn: &mut LiteFsConnection| {
            let query = BoundQuery::new(&statement.sql, &statement.params, false);
            conn.local.sqlite().execute_returning_count(&query)
        };
        conn.in_place_of(class, self.query, execute).map(Changed::Here)
    }

    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<Changed>> {
        let reply = conn.dispatch_query(node, class, destination, self.query, command)?;
        Ok(reply.map(|reply| Changed::There(conn.count(class, &reply))))
    }
}

fn command(statement: Statement) -> Command {
    Repeated::roll_up(statement, FEW_ROWS)
        .map_or_else(Command::Execute, |rows| Command::Insert(Arc::new(rows)))
}

impl LiteFsConnection {
    /// Runs a statement and says how many rows it has changed.
    pub(in crate::connection) fn execute<T>(&mut self, query: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let Some((node, _)) = self.remote.clustered() else {
            let result = self.local.sqlite().execute_returning_count(query);
            self.transaction.note_conflict(&result);
            return result;
        };
        let node = Arc::clone(node);
        if self.is_migrated_already(&node, query)? {
            return Ok(1);
        }
        let class = self.class_of(query)?;
        // A PRAGMA during a transaction on the primary is set there too, as one in a script is.
        if class.control
            || class.query_only
            || (class.sets_session && matches!(self.phase(), Phase::Remote | Phase::Speculating))
        {
            return self.run_script(&node, &sql_of(query)?).map(|()| 0);
        }
        let changed = self.drive(&node, class, &mut ExecuteJob { query })?;
        let count = match changed {
            Changed::Here(count) => self.session.last_count().unwrap_or(count),
            Changed::There(count) => count,
        };
        self.after_change(&node)?;
        Ok(count)
    }

    /// `changes()` counts INSERT, UPDATE and DELETE; after anything else SQLite repeats the last
    /// count.
    fn count(&self, class: Class, reply: &Reply) -> usize {
        match (class.counts, &reply.answer) {
            (true, Output::Count(count)) => usize::try_from(*count).unwrap_or(usize::MAX),
            _ => self.session.last_count().unwrap_or(0),
        }
    }
}
