//! From a statement to its class and destination, and what has to be true before it runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_core::{RoleKind, RoleStamp, Txid};
use litefs_rpc::sqlite::sql::{SqlStatement, statements};
use litefs_rpc::wire::{SessionCounters, Settings};

use super::LiteFsConnection;
use super::decide::destination::{Destination, destination};
use super::decide::phase::Phase;
use super::local::is_writable;
use super::session_functions::{Answers, answered};
use crate::Failure;
use crate::access::{Access, Class, classify_with};
use crate::bind::sql_of;
use crate::consistency::{Consistency, Marks, Visibility, WhenBehind, make_visible};
use crate::node::Node;
use crate::node::diagnosis::explained;
use crate::options::local_writes::LocalWrites;
use crate::router::{Route, Situation};

/// Whether the local file, at `here`, is known to have come as far as `mark`.
#[inline]
fn has_reached(node: &Node, here: Txid, mark: Txid) -> bool {
    mark <= here && (mark == Txid::new(0) || node.read_throttle.same_history())
}

/// Holds a read back until LiteFS has applied what there is, or for as long as that may take.
#[cold]
fn throttle_read(node: &Node) {
    let pause = node.options.read_pause;
    let Some(target) = node.read_throttle.target(node.started).filter(|_| !pause.is_zero()) else {
        return;
    };
    let (tracker, deadline) = (node.tracker.clone(), Instant::now() + pause);
    let applied =
        node.io.wait(async move { tracker.wait_for_txid(target, deadline.into()).await.is_ok() });
    node.read_throttle.note(applied == Some(true), node.started);
}

fn is_behind(node: &Node) -> diesel::result::Error {
    let waited = node.options.read_timeout;
    Failure::Behind
        .error(format!("this node has not caught up with what must be seen within {waited:?}"))
}

impl LiteFsConnection {
    /// The class of a query. For one with a static id this is one lookup; its text is not built.
    pub(super) fn class_of<T>(&mut self, query: &T) -> QueryResult<Class>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let Some(id) = T::query_id() else {
            return self.class_of_text(&sql_of(query)?);
        };
        if let Some(class) = self.classes.by_id(id) {
            return Ok(class);
        }
        let class = self.classify_text(&sql_of(query)?);
        self.classes.put_id(id, class);
        Ok(class)
    }

    pub(super) fn class_of_text(&mut self, sql: &str) -> QueryResult<Class> {
        if let Some(class) = self.classes.by_text(sql) {
            return Ok(class);
        }
        let class = self.classify_text(sql);
        self.classes.put_text(sql.to_owned(), class);
        Ok(class)
    }

    fn classify_text(&mut self, sql: &str) -> Class {
        match statements(sql).as_slice() {
            [] => Class::NOTHING,
            [statement] => self.classify_statement(statement),
            [first, ..] => Class { single: false, ..self.classify_statement(first) },
        }
    }

    pub(super) fn classify_statement(&mut self, statement: &SqlStatement<'_>) -> Class {
        let _muted = self.local.mute();
        // EXPLAIN of a change sets the connection's `changes()` to zero: what it said is kept.
        if self.last_forwarded.is_none() && statement.calls("changes") {
            let said = litefs_rpc::sqlite::session_functions(self.local.sqlite());
            self.last_forwarded = said.ok().map(|[last_insert_rowid, changes, _]| {
                SessionCounters { last_insert_rowid, changes, ..SessionCounters::default() }
            });
        }
        let home = self.home.clone();
        let none = HashSet::new();
        let functions =
            home.as_ref().map_or(Some(&none), |node| node.functions(self.local.sqlite()));
        classify_with(self.local.sqlite(), functions, statement)
    }

    /// Whether a query can go straight to the local file: the short cut for what a replica does
    /// most. Everything that it leaves out is the business of [`ready`](Self::ready), and it must
    /// never say yes where that would say otherwise.
    #[inline]
    pub(super) fn goes_straight<T: QueryId>(&self, node: &Node, stamp: RoleStamp) -> bool {
        let here = node.tracker.last_txid();
        let visible = match self.consistency {
            Consistency::ReadYourWrites => has_reached(node, here, node.watermark.highest()),
            Consistency::Eventual => true,
            Consistency::Session | Consistency::Strong => false,
        };
        visible
            && node.read_throttle.may_read(here)
            && self.local.prepared_for() == Some(stamp)
            && self.forced.is_none()
            && self.phase() == Phase::Autocommit
            && node.options.router.reads_locally()
            && T::query_id().is_some_and(|id| self.classes.is_plain_read(id))
    }

    /// Where a statement runs. `sql` is built only for routers that look at it.
    pub(super) fn destination(
        &self,
        node: &Node,
        class: Class,
        phase: Phase,
        sql: &dyn Fn() -> String,
    ) -> Destination {
        let role = node.tracker.stamp().kind();
        let writable = matches!(role, RoleKind::Primary | RoleKind::Standalone);
        if self.local.is_read_only() && class.access == Access::Write && phase != Phase::Lost {
            // To be refused by SQLite.
            return Destination::Local;
        }
        destination(class, writable, phase, || match &self.forced {
            Some(route) => route.clone(),
            None => {
                let in_transaction = phase != Phase::Autocommit;
                node.options.router.route(&Situation {
                    access: class.access,
                    role,
                    in_transaction,
                    sql,
                })
            }
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.transaction.phase()
    }

    /// Whether a statement that would write here, on the primary, goes through the writer instead.
    pub(super) fn is_grouped(&self, node: &Node, class: Class) -> bool {
        node.options.local_writes == LocalWrites::Grouped
            && class.access == Access::Write
            && !class.split
            && self.phase() == Phase::Autocommit
            && self.forced != Some(Route::Local)
            && !self.local.is_read_only()
            && node.serves()
    }

    /// Makes sure that a local read sees what it must, before its snapshot is taken.
    /// `Route::Primary`: it cannot be seen here in time, read it there.
    #[inline]
    pub(super) fn before_local_read(&mut self, node: &Arc<Node>) -> QueryResult<Route> {
        if !node.read_throttle.may_read(node.tracker.last_txid()) {
            throttle_read(node);
        }
        let highest = match self.consistency {
            Consistency::ReadYourWrites => node.watermark.highest(),
            Consistency::Session => self.own_marks.highest(),
            Consistency::Eventual => return Ok(Route::Local),
            Consistency::Strong => return self.catch_up(node, None),
        };
        if has_reached(node, node.tracker.last_txid(), highest) {
            return Ok(Route::Local);
        }
        let marks = match self.consistency {
            Consistency::Session => self.own_marks.clone(),
            _ => node.watermark.marks(),
        };
        self.catch_up(node, Some(marks))
    }

    /// The slow half: waits for `marks`, or for wherever the primary is.
    #[cold]
    fn catch_up(&mut self, node: &Arc<Node>, marks: Option<Marks>) -> QueryResult<Route> {
        if is_writable(node) {
            return Ok(Route::Local);
        }
        let deadline = Instant::now() + node.options.read_timeout;
        let marks = match marks {
            Some(marks) => marks,
            None => self.primary_position(node, deadline)?,
        };
        if self.is_visible(node, marks, deadline) { Ok(Route::Local) } else { self.behind(node) }
    }

    /// Waits until the local file has all of `marks`.
    pub(super) fn is_visible(&mut self, node: &Arc<Node>, marks: Marks, deadline: Instant) -> bool {
        if !self.is_in_history(node, &marks, deadline) {
            return false;
        }
        // The file may have come far enough without anybody having said so yet.
        if node.tracker.read_position().is_ok_and(|position| position.txid >= marks.highest()) {
            return true;
        }
        let (tracker, forwarder) = (node.tracker.clone(), Arc::clone(&node.forwarder));
        let waiting = make_visible(tracker, forwarder, marks.clone(), deadline.into());
        let Some(Visibility::Here(settled)) = node.io.wait(waiting) else { return false };
        node.watermark.settle(&marks, &settled);
        if self.own_marks == marks {
            self.own_marks = settled;
        }
        true
    }

    /// Waits until the local file is in the history that the marks are of: before that its TXIDs
    /// say nothing.
    fn is_in_history(&self, node: &Arc<Node>, marks: &Marks, deadline: Instant) -> bool {
        if marks.highest() == Txid::new(0) || node.read_throttle.same_history() || is_writable(node)
        {
            return true;
        }
        let mut history_changes = node.read_throttle.history_changes();
        let share = async move {
            let same = history_changes.wait_for(|same| *same);
            tokio::time::timeout_at(deadline.into(), same).await.is_ok_and(|same| same.is_ok())
        };
        node.io.wait(share) == Some(true)
    }

    pub(super) fn primary_position(
        &mut self,
        node: &Arc<Node>,
        deadline: Instant,
    ) -> QueryResult<Marks> {
        use litefs_rpc::client::Forwarded;
        let forwarder = Arc::clone(&node.forwarder);
        let asked = node.io.wait(async move {
            forwarder
                .ask_primary(deadline.into(), |link| async move { link.position(deadline).await })
                .await
        });
        let mut marks = Marks::default();
        match asked {
            Some(Ok(Forwarded::There(position))) => {
                let primary = match node.tracker.role() {
                    litefs_core::Role::Replica { primary } => Some(primary.to_string()),
                    _ => None,
                };
                marks.add(crate::consistency::Mark { position, primary });
                Ok(marks)
            }
            Some(Ok(Forwarded::Here | Forwarded::Unsettled)) => Ok(marks),
            Some(Err(error)) if node.options.when_behind != WhenBehind::ReadStale => {
                Err(crate::error::forwarded(error, None))
            }
            _ => Ok(marks),
        }
    }

    fn behind(&self, node: &Node) -> QueryResult<Route> {
        match node.options.when_behind {
            WhenBehind::ReadPrimary => Ok(Route::Primary),
            WhenBehind::ReadStale => Ok(Route::Local),
            WhenBehind::Fail => Err(is_behind(node)),
        }
    }

    /// SQLite could not prepare this here. It may have been too early; or the schema has not
    /// arrived, and then the error should say so rather than that there is no such table.
    pub(super) fn check_schema(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        let on_replica = node.tracker.stamp().kind() == RoleKind::Replica;
        if !on_replica || self.forced.is_some() || !self.classify_text(sql).guessed {
            return Ok(());
        }
        let Some(missing) = self.missing_here(sql) else { return Ok(()) };
        let deadline = Instant::now() + node.options.read_timeout;
        let ahead = self.primary_position(node, deadline).map(|marks| marks.highest());
        let here = node.tracker.read_position().map(|position| position.txid);
        match (ahead, here) {
            (Ok(ahead), Ok(here)) if ahead > here => Err(Failure::SchemaSkew.error(format!(
                "{missing}; this node is at transaction {here}, the primary is at {ahead}: the \
                 schema may be on its way"
            ))),
            _ => Ok(()),
        }
    }

    /// What SQLite misses in the schema, in its own words; `None` where the statement fails for
    /// another reason.
    fn missing_here(&mut self, sql: &str) -> Option<String> {
        use diesel::connection::LoadConnection;
        let _muted = self.local.mute();
        let explain = format!("EXPLAIN {sql}");
        let prepared =
            self.local.sqlite().load(litefs_rpc::sqlite::BoundQuery::new(&explain, &[], false));
        let message = prepared.err()?.to_string();
        let missing = ["no such table", "no such column", "no such index"];
        missing.iter().any(|missing| message.starts_with(missing)).then_some(message)
    }

    /// The session PRAGMAs as they stand, read from the local connection after each change.
    pub(super) fn settings(&mut self) -> QueryResult<Settings> {
        if let Some(settings) = self.settings {
            return Ok(settings);
        }
        let _muted = self.local.mute();
        let settings = litefs_rpc::sqlite::read_settings(self.local.sqlite())?;
        self.settings = Some(settings);
        Ok(settings)
    }

    /// What `last_insert_rowid()` and its like say on this connection.
    pub(super) fn session_answers(&mut self) -> QueryResult<Answers> {
        let _muted = self.local.mute();
        let [rowid, changes, total] = litefs_rpc::sqlite::session_functions(self.local.sqlite())?;
        let (last_insert_rowid, changes) = match self.last_forwarded {
            Some(effects) => (effects.last_insert_rowid, effects.changes),
            None => (rowid, changes),
        };
        Ok(Answers { last_insert_rowid, changes, total_changes: total + self.forwarded_changes })
    }

    /// Of several statements those that ask for the numbers of the last write before any of them
    /// has written: their questions are answered in the text, as those of a single statement are.
    /// `None` where there is nothing to answer.
    pub(super) fn answered_before_writes(
        &mut self,
        node: &Node,
        all: &[(&str, Class)],
    ) -> QueryResult<Option<Vec<String>>> {
        let first_write = all.iter().position(|(_, class)| class.counts).unwrap_or(all.len());
        let asking =
            |(at, (_, class)): (usize, &(&str, Class))| at <= first_write && class.asks_session;
        let own = self.last_forwarded.is_none() && self.forwarded_changes == 0 && is_writable(node);
        if own || !all.iter().enumerate().any(asking) {
            return Ok(None);
        }
        let answers = self.session_answers()?;
        let text = |(at, (sql, class)): (usize, &(&str, Class))| {
            if at <= first_write && class.asks_session {
                answered(sql, answers)
            } else {
                (*sql).to_owned()
            }
        };
        Ok(Some(all.iter().enumerate().map(text).collect()))
    }

    /// Waits for what the statement must find in the local file. A forced route to this node waits
    /// for nothing; VACUUM INTO with a forced route to the primary waits for all that the primary
    /// has.
    fn catch_up_for(&mut self, node: &Arc<Node>, class: Class) -> QueryResult<Route> {
        match self.forced {
            Some(Route::Local) => Ok(Route::Local),
            Some(Route::Primary) if class.copies => self.catch_up(node, None),
            _ => self.before_local_read(node),
        }
    }

    /// Before a statement that reads the local file: takes the snapshot of a pending transaction,
    /// or waits.
    pub(super) fn prepare_local(&mut self, node: &Arc<Node>, class: Class) -> QueryResult<Route> {
        let phase = self.phase();
        let reads = class.access == Access::Read;
        let concerns_transaction =
            class.access != Access::Local || class.writes_locally || class.sets_session;
        let begins = phase == Phase::Pending && concerns_transaction;
        if self.local.prepared_for().is_none()
            && (class.access != Access::Local || class.writes_locally)
        {
            return Err(self.without_mount());
        }
        // The snapshot is for all that the transaction does, whatever begins it; and what fills a
        // temporary table may read the database.
        if begins || (phase == Phase::Autocommit && (reads || class.writes_locally)) {
            match self.catch_up_for(node, class)? {
                Route::Primary if reads => return Ok(Route::Primary),
                // A copy must not lack what it is taken to have.
                Route::Primary if class.copies => return Err(is_behind(node)),
                _ => {}
            }
        }
        if begins {
            self.begin_local(node).map_err(|error| explained(node, error))?;
        }
        Ok(Route::Local)
    }
}
