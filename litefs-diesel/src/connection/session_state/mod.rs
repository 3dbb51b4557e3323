//! What the application sees of the connection's session: its PRAGMAs, and the counters of its last
//! write, wherever that ran.

mod functions;

use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use litefs_rpc::sqlite::sql::SqlStatement;
use litefs_rpc::sqlite::{read_settings, session_functions};
use litefs_rpc::wire::{SessionCounters, Settings};

use self::functions::{Answers, answered};
use super::local::Local;
use crate::access::Class;

/// The session as the application sees it.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    /// The session PRAGMAs that forwarded writes follow; `None` after one was set.
    settings: Option<Settings>,
    /// The counters of the last write, if it was forwarded.
    last_forwarded: Option<SessionCounters>,
    /// The rows changed by forwarded writes, for `total_changes()`.
    forwarded_changes: i64,
}

impl SessionState {
    /// The session PRAGMAs as they are, read from the local connection after each change.
    pub(super) fn settings(&mut self, local: &mut Local) -> QueryResult<Settings> {
        if let Some(settings) = self.settings {
            return Ok(settings);
        }
        let _muted = local.mute();
        let settings = read_settings(local.sqlite())?;
        self.settings = Some(settings);
        Ok(settings)
    }

    /// A session PRAGMA was set.
    pub(super) fn settings_changed(&mut self) {
        self.settings = None;
    }

    /// A transaction began or ended: SQLite clears `defer_foreign_keys` at the end of each.
    pub(super) fn transaction_changed(&mut self) {
        if self.settings.is_some_and(|settings| settings.defer_foreign_keys) {
            self.settings = None;
        }
    }

    /// Whether a statement calls a session function, and its answer is not the local connection's.
    pub(super) fn answers_differ(&self, class: Class) -> bool {
        class.asks_session && self.has_forwarded()
    }

    fn has_forwarded(&self) -> bool {
        self.last_forwarded.is_some() || self.forwarded_changes > 0
    }

    /// The text of a statement with the answers in place of its calls of session functions.
    pub(super) fn answer(&self, local: &mut Local, sql: &str) -> QueryResult<String> {
        Ok(answered(sql, self.answers(local)?))
    }

    fn answers(&self, local: &mut Local) -> QueryResult<Answers> {
        let _muted = local.mute();
        let [rowid, changes, total] = session_functions(local.sqlite())?;
        let (last_insert_rowid, changes) = match self.last_forwarded {
            Some(effects) => (effects.last_insert_rowid, effects.changes),
            None => (rowid, changes),
        };
        Ok(Answers { last_insert_rowid, changes, total_changes: total + self.forwarded_changes })
    }

    /// The texts of several statements. Those that call session functions before any statement has
    /// written get the answers in place of the calls, as a single statement does. `None`: no text
    /// changes. `writable`: the statements run on this node's file.
    pub(super) fn answer_before_writes(
        &self,
        local: &mut Local,
        writable: bool,
        all: &[(&str, Class)],
    ) -> QueryResult<Option<Vec<String>>> {
        let first_write = all.iter().position(|(_, class)| class.counts).unwrap_or(all.len());
        let asking =
            |(at, (_, class)): (usize, &(&str, Class))| at <= first_write && class.asks_session;
        let own = !self.has_forwarded() && writable;
        if own || !all.iter().enumerate().any(asking) {
            return Ok(None);
        }
        let answers = self.answers(local)?;
        let text = |(at, (sql, class)): (usize, &(&str, Class))| {
            if at <= first_write && class.asks_session {
                answered(sql, answers)
            } else {
                (*sql).to_owned()
            }
        };
        Ok(Some(all.iter().enumerate().map(text).collect()))
    }

    /// Keeps the answer of `changes()` before the statement is classified: EXPLAIN of a change sets
    /// the connection's own to zero.
    pub(super) fn before_explain(&mut self, local: &mut Local, statement: &SqlStatement<'_>) {
        if self.last_forwarded.is_none() && statement.calls("changes") {
            let numbers = session_functions(local.sqlite());
            self.last_forwarded = numbers.ok().map(|[last_insert_rowid, changes, _]| {
                SessionCounters { last_insert_rowid, changes, ..SessionCounters::default() }
            });
        }
    }

    /// A statement ran on the primary. The connection that it ran on is shared: only the counters
    /// that this statement has set are those of this session.
    pub(super) fn ran_remotely(
        &mut self,
        local: &mut Local,
        class: Class,
        effects: SessionCounters,
    ) {
        self.forwarded_changes += effects.total_changes;
        if class.counts {
            let inserted = class.inserts && effects.inserted;
            let rowid = if inserted { effects.last_insert_rowid } else { self.last_rowid(local) };
            self.last_forwarded = Some(SessionCounters { last_insert_rowid: rowid, ..effects });
        }
    }

    /// A recorded transaction ran on the primary, with INSERTs in it. If they have inserted rows,
    /// the primary says which was the last.
    pub(super) fn record_inserted(&mut self, effects: SessionCounters) {
        if let Some(last) = self.last_forwarded.as_mut().filter(|_| effects.inserted) {
            last.last_insert_rowid = effects.last_insert_rowid;
        }
    }

    /// A recorded transaction ran on the primary.
    pub(super) fn ran_record(&mut self, effects: SessionCounters, inserted: bool) {
        let last_insert_rowid = match self.last_forwarded {
            Some(last) if !(inserted && effects.inserted) => last.last_insert_rowid,
            _ => effects.last_insert_rowid,
        };
        self.last_forwarded = Some(SessionCounters { last_insert_rowid, ..effects });
    }

    /// A statement failed on the primary. After the violation of a constraint SQLite has begun the
    /// statement and undone it, which counts as one that changed nothing.
    pub(super) fn failed_remotely(&mut self, local: &mut Local, class: Class, error: &Error) {
        if class.counts && is_violation(error) {
            let last_insert_rowid = self.last_rowid(local);
            self.last_forwarded =
                Some(SessionCounters { last_insert_rowid, ..SessionCounters::default() });
        }
    }

    /// A statement ran on the local file.
    pub(super) fn ran_locally(&mut self, local: &mut Local, class: Class) {
        if class.sets_session {
            self.settings = None;
        }
        if class.counts {
            // What inserts nothing leaves the last rowid as it is, wherever that row went.
            self.last_forwarded = match self.last_forwarded {
                Some(last) if !class.inserts => {
                    Some(SessionCounters { changes: local_counters(local)[1], ..last })
                }
                _ => None,
            };
        }
    }

    /// What `changes()` says, if the last write was forwarded.
    pub(super) fn last_count(&self) -> Option<usize> {
        self.last_forwarded.map(|last| usize::try_from(last.changes).unwrap_or(0))
    }

    fn last_rowid(&self, local: &mut Local) -> i64 {
        let last = self.last_forwarded.map(|last| last.last_insert_rowid);
        last.unwrap_or_else(|| local_counters(local)[0])
    }
}

/// What `last_insert_rowid()` and `changes()` say on the local connection.
fn local_counters(local: &mut Local) -> [i64; 2] {
    let _muted = local.mute();
    session_functions(local.sqlite()).map_or([0; 2], |[rowid, changes, _]| [rowid, changes])
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
