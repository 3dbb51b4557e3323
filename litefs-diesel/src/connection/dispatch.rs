//! Sends the work of a job to the primary, and notes what it has done.

use std::ffi::CString;
use std::sync::Arc;

use diesel::connection::DebugQuery;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::has_function;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::wire::{Command, Reply, Statement};

use super::LiteFsConnection;
use super::decide::destination::Destination;
use super::decide::may_write::MayWrite;
use crate::access::Class;
use crate::error::{missing_function, missing_on_primary};
use crate::node::Node;
use crate::node::own_name::name_or_host;

impl LiteFsConnection {
    /// The query as text and values, with the answers in place of its calls of session functions.
    pub(super) fn capture<T>(&mut self, class: Class, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let mut statement = self.bind.capture(query)?;
        // Diesel refuses a text with a NUL before SQLite sees it.
        CString::new(statement.sql.as_str())?;
        if !class.single
            && let Some(first) =
                statements(&statement.sql).first().map(|first| first.sql.to_owned())
        {
            // Of several statements SQLite prepares the first.
            statement.sql = first;
        }
        if class.asks_session {
            statement.sql = self.session.answer(&mut self.local, &statement.sql)?;
            statement.cacheable = false;
        }
        Ok(statement)
    }

    /// Runs a query on the primary. `None`: this node is the primary now, run it here.
    pub(super) fn dispatch_query<T>(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
        query: &T,
        work: fn(Statement) -> Command,
    ) -> QueryResult<Option<Reply>>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        self.reporting(class, query, |conn| {
            let statement = conn.capture(class, query)?;
            conn.dispatch(node, class, destination, work(statement))
        })
    }

    /// Runs another text in place of a query. The application's instrumentation sees the query as
    /// it was written.
    pub(super) fn in_place_of<T, R>(
        &mut self,
        class: Class,
        query: &T,
        run: impl FnOnce(&mut Self) -> QueryResult<R>,
    ) -> QueryResult<R>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        self.reporting(class, query, |conn| {
            let _muted = conn.local.mute();
            run(conn)
        })
    }

    /// Reports a query to the application's instrumentation as Diesel reports one of its own: its
    /// start, that it is cached if it is new, its end.
    fn reporting<T, R>(
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
            let new = conn.local.report_cached(query)?;
            let result = run(conn);
            // What cannot be prepared is not cached.
            conn.local.keep_reported(new.filter(|_| result.is_ok() || !class.guessed));
            result
        })
    }

    /// Reports the start and the end of something that Diesel does not cache.
    pub(super) fn reporting_text<R>(
        &mut self,
        query: &dyn DebugQuery,
        run: impl FnOnce(&mut Self) -> QueryResult<R>,
    ) -> QueryResult<R> {
        self.local.report_start(query);
        let result = run(self);
        self.local.report_finish(query, &result);
        result
    }

    /// Sends work to the primary and notes what it has done. `None`: this node is the primary now.
    pub(super) fn dispatch(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        let single = matches!(work, Command::Execute(_) | Command::Query(_) | Command::Insert(_));
        let may_write = MayWrite::of(class, single);
        let result = match destination {
            Destination::Session => self.in_session(node, work),
            Destination::Move => self.advance(node, class, work),
            _ => self.forward(node, may_write, work),
        };
        let reply = result.map_err(|error| self.explain_missing_function(node, error))?;
        if let Some(Reply { effects, .. }) = reply {
            let changed = effects.total_changes > 0;
            self.transaction.note_reply(changed, may_write.may_have_written(effects));
            self.session.ran_remotely(&mut self.local, class, effects);
        }
        Ok(reply)
    }

    /// "no such function" does not say on which node, and this node may have the function.
    fn explain_missing_function(&mut self, node: &Node, error: Error) -> Error {
        let Some(function) = missing_function(&error) else { return error };
        let _muted = self.local.mute();
        if !has_function(self.local.sqlite(), function).unwrap_or(false) {
            return error;
        }
        missing_on_primary(function, &primary_name(node))
    }
}

/// The name of the node that runs what goes to the primary.
fn primary_name(node: &Node) -> String {
    let role = node.tracker.role();
    role.primary().map_or_else(|| name_or_host(&node.tracker).to_string(), ToString::to_string)
}
