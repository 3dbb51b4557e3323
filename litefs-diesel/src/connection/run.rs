//! The life of one statement.

use std::sync::Arc;

use diesel::connection::DebugQuery;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::has_function;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::wire::{Command, Reply, SessionCounters, Statement};

use super::LiteFsConnection;
use super::decide::destination::Destination;
use super::local::is_writable;
use super::session_functions::answered;
use crate::Failure;
use crate::access::{Access, Class};
use crate::error::{missing_function, missing_on_primary};
use crate::node::Node;
use crate::node::own_name::name_or_host;
use crate::router::Route;

impl LiteFsConnection {
    /// Whether a statement asks for the numbers of a write that ran elsewhere.
    pub(super) fn answers_differ(&self, class: Class) -> bool {
        class.asks_session && (self.last_forwarded.is_some() || self.forwarded_changes > 0)
    }

    /// The query as text and values, with its questions about the last write answered.
    pub(super) fn capture<T>(&mut self, class: Class, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let mut statement = self.scratch.capture(query)?;
        // Diesel refuses it before SQLite sees it.
        std::ffi::CString::new(statement.sql.as_str())?;
        if !class.single
            && let Some(first) =
                statements(&statement.sql).first().map(|first| first.sql.to_owned())
        {
            // Of several statements SQLite prepares the first.
            statement.sql = first;
        }
        if class.asks_session {
            let answers = self.session_answers()?;
            statement.sql = answered(&statement.sql, answers);
            statement.cacheable = false;
        }
        Ok(statement)
    }

    /// Runs a statement away from here. `None`: this node is the primary now, run it here.
    pub(super) fn run_elsewhere<T>(
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

    /// The user hears of the query as it was written, whatever runs in its place.
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

    /// Sends work to the primary and remembers what it came to. `None`: this node is the primary
    /// now.
    pub(super) fn dispatch(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
        work: Command,
    ) -> QueryResult<Option<Reply>> {
        let single = matches!(work, Command::Execute(_) | Command::Query(_) | Command::Insert(_));
        let writes = Writes::of(class, single);
        let result = match destination {
            Destination::Session => self.in_session(node, work).map(Some),
            Destination::Move => self.advance(node, class, work),
            _ => self.forward(node, writes, work),
        };
        if let Ok(Some(reply)) = &result {
            let changed = reply.effects.total_changes > 0;
            self.transaction.note_reply(changed, writes.may_have_written(reply.effects));
        }
        let reply = result.map_err(|error| self.missing_there(node, error))?;
        if let Some(reply) = &reply {
            self.remember(class.counts, class.inserts, reply.effects);
        }
        Ok(reply)
    }

    /// "no such function" is a riddle where this node has the function.
    fn missing_there(&mut self, node: &Node, error: Error) -> Error {
        let Some(function) = missing_function(&error) else { return error };
        let _muted = self.local.mute();
        if !has_function(self.local.sqlite(), function).unwrap_or(false) {
            return error;
        }
        missing_on_primary(function, &self.primary_name(node))
    }

    /// The node that ran what went to the primary.
    fn primary_name(&self, node: &Node) -> String {
        let role = node.tracker.role();
        role.primary().map_or_else(|| name_or_host(&node.tracker).to_string(), ToString::to_string)
    }

    /// What the session functions say after a forwarded statement. The connection it ran on is
    /// shared: of its numbers only those that this statement has set are this connection's.
    fn remember(&mut self, counts: bool, inserts: bool, effects: SessionCounters) {
        self.forwarded_changes += effects.total_changes;
        if counts {
            let inserted = inserts && effects.inserted;
            let rowid = if inserted { effects.last_insert_rowid } else { self.last_rowid() };
            self.last_forwarded = Some(SessionCounters { last_insert_rowid: rowid, ..effects });
        }
    }

    /// SQLite began the statement and took it back: it counts as one that changed nothing.
    pub(super) fn remember_violation(&mut self, class: Class, error: Option<&Error>) {
        if class.counts && error.is_some_and(is_violation) {
            let last_insert_rowid = self.last_rowid();
            self.last_forwarded =
                Some(SessionCounters { last_insert_rowid, ..SessionCounters::default() });
        }
    }

    fn last_rowid(&mut self) -> i64 {
        let last = self.last_forwarded.map(|last| last.last_insert_rowid);
        last.unwrap_or_else(|| self.local_numbers()[0])
    }

    /// What `last_insert_rowid()` and `changes()` say on the local connection.
    fn local_numbers(&mut self) -> [i64; 2] {
        let _muted = self.local.mute();
        let numbers = litefs_rpc::sqlite::session_functions(self.local.sqlite());
        numbers.map_or([0; 2], |[rowid, changes, _]| [rowid, changes])
    }

    /// After a statement that ran on the local file.
    pub(super) fn ran_here(&mut self, class: Class) {
        if class.writes_locally && !class.vacuums {
            self.classes.clear();
            self.transaction.note_local_write();
        }
        if class.sets_session {
            self.settings = None;
        }
        if class.counts {
            // What inserts nothing leaves the last rowid as it is, wherever that row went.
            self.last_forwarded = match self.last_forwarded {
                Some(last) if !class.inserts => {
                    Some(SessionCounters { changes: self.local_numbers()[1], ..last })
                }
                _ => None,
            };
        }
    }

    /// Whether a statement that failed here should be run on the primary as a write: it read as far
    /// as SQLite can tell, but called a function of the application that may have tried to write.
    /// Nothing of it was applied.
    pub(super) fn was_a_write(&self, node: &Node, class: &mut Class, error: &Error) -> bool {
        let in_sql = matches!(error, Error::DatabaseError(..)) && Failure::of(error).is_none();
        let may_move = self.forced != Some(Route::Local) && !is_writable(node);
        let was = class.may_write() && in_sql && may_move;
        if was {
            class.access = Access::Write;
        }
        was
    }
}

/// Whether what went to the primary can have written something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// It reads.
    No,
    /// It has if `total_changes()` has grown.
    Counted,
    /// It may have, whatever `total_changes()` says, as a change of the schema does.
    Perhaps,
}

impl Writes {
    /// `single`: it is one statement.
    fn of(class: Class, single: bool) -> Self {
        match class.access {
            Access::Write if single && class.counts => Self::Counted,
            Access::Write => Self::Perhaps,
            _ => Self::No,
        }
    }

    pub(super) fn may_have_written(self, effects: SessionCounters) -> bool {
        self == Self::Perhaps || effects.total_changes > 0
    }
}

fn is_violation(error: &Error) -> bool {
    use DatabaseErrorKind::{
        CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
    };
    matches!(
        error,
        Error::DatabaseError(
            UniqueViolation | ForeignKeyViolation | NotNullViolation | CheckViolation,
            _
        )
    )
}

/// Why a statement that stays here cannot run while the transaction is open on the primary, or
/// needs both.
pub(super) fn no_place_for(class: Class) -> Error {
    if !class.vacuums {
        return split();
    }
    // As SQLite says it of a transaction that is open here.
    let message = "cannot VACUUM from within a transaction".to_owned();
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message))
}

pub(super) fn split() -> Error {
    Failure::Denied.error(
        "on a node that is not the primary, what changes the database cannot also use temporary \
         or attached tables, in one statement, script or transaction: they exist on this \
         connection only",
    )
}
