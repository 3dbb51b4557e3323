//! The life of one statement.

use std::sync::Arc;

use diesel::connection::Connection;
use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::sql::statements;
use litefs_rpc::sqlite::{BoundQuery, application_functions};
use litefs_rpc::wire::{Command, Output, Repeated, Reply, RowSet, SessionCounters, Statement};

use super::LiteFsConnection;
use super::destination::{Destination, Phase};
use super::session_functions::answered;
use super::transaction_calls::is_locked;
use crate::Failure;
use crate::access::{Access, Class};
use crate::bind::sql_of;
use crate::error::{missing_function, missing_on_primary};
use crate::node::Node;
use crate::node::own_name::name_or_host;
use crate::router::Route;

/// How often the role may change under one statement before that is an error of its own. Each turn has followed one
/// change, with nothing applied.
pub(super) const TURNS: usize = 16;

/// Where a statement is going to run, after everything that must happen before.
pub(super) enum Ready {
    /// Here, as it stands.
    Local,
    /// Here, as plain text and values: its questions about the last write are answered in the text.
    Answered(Statement),
    /// Here, collected to the end before the first row is handed out: LiteFS may reject the commit after SQLite has
    /// returned rows.
    Collected,
    /// There.
    Elsewhere(Destination),
}

impl LiteFsConnection {
    pub(super) fn ready<T>(&mut self, node: &Arc<Node>, class: Class, query: &T) -> QueryResult<Ready>
    where
        T: QueryFragment<Sqlite>,
    {
        self.follow_role(node)?;
        if class.refused {
            return Err(refusal(&sql_of(query)?));
        }
        self.check_query_only(class)?;
        let phase = self.phase();
        let destination = self.destination(node, class, phase, &|| sql_of(query).unwrap_or_default());
        match destination {
            Destination::Local if self.is_grouped(node, class) => Ok(Ready::Elsewhere(Destination::Primary)),
            Destination::Local => self.ready_here(node, class, query),
            Destination::Reject(reason) => Err(Failure::Rejected.error(reason)),
            Destination::Split => Err(no_place_for(class)),
            Destination::Lost => Err(self.transaction.lost()),
            Destination::Demoted => Err(self.demoted()),
            elsewhere => Ok(Ready::Elsewhere(elsewhere)),
        }
    }

    fn ready_here<T>(&mut self, node: &Arc<Node>, class: Class, query: &T) -> QueryResult<Ready>
    where
        T: QueryFragment<Sqlite>,
    {
        if self.prepare_local(node, class)? == Route::Primary {
            let pending = self.phase() == Phase::Pending;
            return Ok(Ready::Elsewhere(if pending { Destination::Move } else { Destination::Primary }));
        }
        if class.guessed && class.access == Access::Read {
            self.check_schema(node, &sql_of(query)?)?;
        }
        if class.asks_session && (self.last_forwarded.is_some() || self.forwarded_changes > 0) {
            return Ok(Ready::Answered(self.capture(class, query)?));
        }
        let collected = class.access == Access::Write || class.may_write();
        Ok(if collected { Ready::Collected } else { Ready::Local })
    }

    /// The query as text and values, with its questions about the last write answered.
    fn capture<T>(&mut self, class: Class, query: &T) -> QueryResult<Statement>
    where
        T: QueryFragment<Sqlite>,
    {
        let mut statement = self.scratch.capture(query)?;
        // Diesel refuses it before SQLite sees it.
        std::ffi::CString::new(statement.sql.as_str())?;
        if !class.single
            && let Some(first) = statements(&statement.sql).first().map(|first| first.sql.to_owned())
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
        let result = self.reporting(class, query, |conn| {
            let statement = conn.capture(class, query)?;
            let reply = conn.carry(node, class, destination, work(statement))?;
            if let Some(reply) = &reply {
                conn.remember(class.counts, class.inserts, reply.effects);
            }
            Ok(reply)
        });
        self.remember_violation(class, result.as_ref().err());
        result
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
            let _silent = conn.silence.keep();
            run(conn)
        })
    }

    pub(super) fn carry(
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
            Destination::Move => self.move_to_primary(node, work),
            _ => self.forward(node, writes, work),
        };
        if let Ok(Some(reply)) = &result
            && self.phase() == Phase::Remote
        {
            self.transaction.may_have_written |= writes.may_have_written(reply.effects);
        }
        result.map_err(|error| self.missing_there(node, error))
    }

    /// "no such function" is a riddle where this node has the function.
    fn missing_there(&mut self, node: &Node, error: Error) -> Error {
        let Some(function) = missing_function(&error) else { return error };
        let _silent = self.silence.keep();
        if !application_functions(&mut self.local).contains(&function.to_ascii_lowercase()) {
            return error;
        }
        missing_on_primary(function, &self.primary_name(node))
    }

    /// The node that ran what went to the primary.
    fn primary_name(&self, node: &Node) -> String {
        let role = node.tracker.role();
        role.primary().map_or_else(|| name_or_host(&node.tracker).to_string(), ToString::to_string)
    }

    /// What the session functions say after a forwarded statement. The connection it ran on is shared: of its
    /// numbers only those that this statement has set are this connection's.
    pub(super) fn remember(&mut self, counts: bool, inserts: bool, effects: SessionCounters) {
        self.forwarded_changes += effects.total_changes;
        self.transaction.wrote_there |= effects.total_changes > 0 && self.phase() == Phase::Remote;
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
            self.last_forwarded = Some(SessionCounters { last_insert_rowid, ..SessionCounters::default() });
        }
    }

    fn last_rowid(&mut self) -> i64 {
        let last = self.last_forwarded.map(|last| last.last_insert_rowid);
        last.unwrap_or_else(|| self.local_numbers()[0])
    }

    /// What `last_insert_rowid()` and `changes()` say on the local connection.
    fn local_numbers(&mut self) -> [i64; 2] {
        let _silent = self.silence.keep();
        let numbers = litefs_rpc::sqlite::session_functions(&mut self.local);
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

    /// Whether a statement that failed here should be run on the primary as a write: it read as far as SQLite can tell,
    /// but called a function of the application that may have tried to write. Nothing of it was applied.
    pub(super) fn was_a_write(&self, node: &Node, class: &mut Class, error: &Error) -> bool {
        let in_sql = matches!(error, Error::DatabaseError(..)) && Failure::of(error).is_none();
        let may_move = self.forced != Some(Route::Local) && !self.is_writable(node);
        let was = class.may_write() && in_sql && may_move;
        if was {
            class.access = Access::Write;
        }
        was
    }

    pub(super) fn execute<T>(&mut self, query: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let Some((node, _)) = self.clustered() else {
            return self.local.execute_returning_count(query).inspect_err(|e| self.lost_race |= is_locked(e));
        };
        let node = Arc::clone(node);
        if self.is_migrated_already(&node, query)? {
            return Ok(1);
        }
        let mut class = self.class_of(query)?;
        // A PRAGMA that concerns the transaction on the primary goes there too, as one in a script does.
        if class.control || class.query_only || (class.sets_session && self.phase() == Phase::Remote) {
            return self.run_script(&node, &sql_of(query)?).map(|()| 0);
        }
        for _ in 0..TURNS {
            let here = match self.ready(&node, class, query)? {
                Ready::Elsewhere(destination) => {
                    match self.run_elsewhere(&node, class, &destination, query, execute)? {
                        Some(reply) => {
                            self.after_change(&node)?;
                            return Ok(self.count(class, &reply));
                        }
                        None => continue,
                    }
                }
                Ready::Answered(statement) => {
                    let answered = BoundQuery::new(&statement.sql, &statement.params, false);
                    self.in_place_of(class, query, |conn| conn.execute_here(class, &answered))
                }
                Ready::Local | Ready::Collected => self.execute_here(class, query),
            };
            if let Some(count) = self.conclude(&node, &mut class, here)? {
                self.after_change(&node)?;
                return Ok(count);
            }
        }
        Err(changed_again())
    }

    fn execute_here<T>(&mut self, class: Class, query: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let ticket = self.autocommit_ticket(class);
        let result = if class.writes_locally {
            self.lifting_query_only(|conn| conn.local.execute_returning_count(query))
        } else {
            self.local.execute_returning_count(query)
        };
        self.ran_here(class);
        if result.is_ok() {
            self.prove(ticket)?;
        }
        let last = self.last_forwarded.map(|last| usize::try_from(last.changes).unwrap_or(0));
        result.map(|count| last.unwrap_or(count))
    }

    /// `changes()` counts INSERT, UPDATE and DELETE; after anything else SQLite repeats the last count.
    fn count(&self, class: Class, reply: &Reply) -> usize {
        let count = match (class.counts, &reply.answer) {
            (true, Output::Count(count)) => *count,
            _ => self.last_forwarded.map_or(0, |last| u64::try_from(last.changes).unwrap_or(0)),
        };
        usize::try_from(count).unwrap_or(usize::MAX)
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

/// The rows of a reply.
pub(super) fn rows(reply: Reply) -> QueryResult<RowSet> {
    match reply.answer {
        Output::Rows(rows) => Ok(rows),
        other => Err(Failure::Protocol.error(format!("asked for rows, the primary answered {other:?}"))),
    }
}

fn is_violation(error: &Error) -> bool {
    use DatabaseErrorKind::{CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation};
    matches!(
        error,
        Error::DatabaseError(UniqueViolation | ForeignKeyViolation | NotNullViolation | CheckViolation, _)
    )
}

/// Nothing was applied: each try ended with this node not being what it was taken for.
pub(super) fn changed_again() -> Error {
    Failure::NoPrimary.error("the primary changed again and again while the statement ran")
}

pub(super) fn refusal(sql: &str) -> Error {
    let reason = statements(sql).iter().find_map(litefs_rpc::sqlite::refused_under_litefs);
    Failure::Denied.error(reason.unwrap_or_else(|| "refused under LiteFS".into()))
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
        "on a node that is not the primary, what changes the database cannot also use temporary or attached tables, in \
         one statement, script or transaction: they exist on this connection only",
    )
}

/// More rows than this in one INSERT are written short.
const FEW_ROWS: usize = 16;

/// A statement whose rows do not matter, as work.
fn execute(statement: Statement) -> Command {
    Repeated::roll_up(statement, FEW_ROWS)
        .map_or_else(Command::Execute, |rows| Command::Insert(Arc::new(rows)))
}
