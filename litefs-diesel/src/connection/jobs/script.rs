//! The life of a script, and of the statements that steer the transaction.

use std::sync::Arc;

use diesel::connection::StrQueryHelper;
use diesel::result::QueryResult;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb, statements};
use litefs_rpc::wire::Command;

use super::super::LiteFsConnection;
use super::super::decide::destination::Destination;
use super::super::decide::phase::Phase;
use super::super::driver::{Job, refusal};
use super::super::local::read_only;
use crate::Failure;
use crate::access::{Access, Class, Control, ScriptPlan, plan_script};
use crate::node::Node;

struct ScriptJob<'a> {
    sql: &'a str,
    /// The PRAGMAs in it that concern this connection as well.
    session: &'a [String],
}

impl Job for ScriptJob<'_> {
    type Done = ();
    const MAY_BE_GROUPED: bool = false;

    fn sql(&self) -> QueryResult<String> {
        Ok(self.sql.to_owned())
    }

    /// Of several statements the results are not seen one by one.
    fn command(&self, _: &mut LiteFsConnection, _: Class) -> QueryResult<Option<Command>> {
        Ok(None)
    }

    fn run_here(&mut self, conn: &mut LiteFsConnection, class: Class) -> QueryResult<()> {
        let remote = conn.phase() == Phase::Remote;
        if remote && sets_foreign_keys(self.sql) {
            // SQLite ignores it inside a transaction; the local connection does not know that it is
            // in one.
            return conn.heard(self.sql, |_| Ok(()));
        }
        conn.local.batch_execute(self.sql)?;
        match conn.home.clone().filter(|_| class.sets_session && remote) {
            Some(node) => conn.in_session(&node, Command::Script(self.sql.to_owned())).map(drop),
            None => Ok(()),
        }
    }

    fn run_there(
        &mut self,
        conn: &mut LiteFsConnection,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
    ) -> QueryResult<Option<()>> {
        let mut reply = None;
        conn.heard(self.sql, |conn| {
            // Diesel refuses it before SQLite sees it.
            std::ffi::CString::new(self.sql)?;
            reply =
                conn.dispatch(node, class, destination, Command::Script(self.sql.to_owned()))?;
            Ok(())
        })?;
        match reply {
            Some(_) => conn.repeat_session_pragmas(self.session).map(Some),
            None => Ok(None),
        }
    }
}

impl LiteFsConnection {
    /// Several statements without parameters, or one that steers the transaction.
    pub(in crate::connection) fn run_script(
        &mut self,
        node: &Arc<Node>,
        sql: &str,
    ) -> QueryResult<()> {
        self.follow_role(node)?;
        let all = statements(sql);
        let mut classes: Vec<_> =
            all.iter().map(|statement| self.classify_statement(statement)).collect();
        reclassify_by_what_is_made(&all, &mut classes);
        if let Some(refused) = all.iter().zip(&classes).find(|(_, class)| class.refused) {
            return Err(refusal(refused.0.sql));
        }
        if let [Class { query_only: true, .. }] = classes[..] {
            return self.local.query_only_pragma(sql).map(drop);
        }
        let texts: Vec<_> =
            all.iter().map(|statement| statement.sql).zip(classes.iter().copied()).collect();
        let answered = self.answered_before_writes(node, &texts)?.map(|texts| texts.join("; "));
        let sql = answered.as_deref().unwrap_or(sql);
        match plan_script(&all, &classes, self.phase() != Phase::Autocommit) {
            ScriptPlan::Control(control) => self.steer(node, &control, sql),
            ScriptPlan::Refused(reason) => Err(Failure::Denied.error(reason)),
            ScriptPlan::Local { writes_locally, sets_session, reads } => {
                let access = if reads { Access::Read } else { Access::Local };
                let any = |test: fn(&Class) -> bool| classes.iter().any(test);
                let calls_application = any(|class| class.calls_application);
                let (vacuums, copies) = (any(|class| class.vacuums), any(|class| class.copies));
                let class = Class { access, writes_locally, sets_session, ..Class::NOTHING };
                let class = Class { calls_application, vacuums, copies, ..class };
                self.drive(node, class, &mut ScriptJob { sql, session: &[] })
            }
            // Run here up to its first write, it could leave a transaction open.
            ScriptPlan::Write { .. } if self.local.is_read_only() && all.len() > 1 => {
                Err(read_only())
            }
            ScriptPlan::Write { session, split } => {
                let any = |test: fn(&Class) -> bool| classes.iter().any(test);
                let (counts, inserts) = (any(|class| class.counts), any(|class| class.inserts));
                let (access, writes_locally) = (Access::Write, split);
                let class =
                    Class { access, writes_locally, split, counts, inserts, ..Class::NOTHING };
                let result = self.drive(node, class, &mut ScriptJob { sql, session: &session });
                self.note_failed_script(&all, &result);
                result
            }
        }
    }

    /// A script that opens a transaction and fails leaves it open. Where it ran elsewhere, that
    /// transaction is rolled back already, and the connection must not go on as if there had been
    /// none.
    fn note_failed_script(&mut self, all: &[SqlStatement<'_>], result: &QueryResult<()>) {
        let begins =
            all.iter().any(|statement| matches!(Control::of(statement), Some(Control::Begin(_))));
        let failed_in_sql = result.as_ref().is_err_and(|error| Failure::of(error).is_none());
        let elsewhere = self.local.is_query_only() && self.phase() == Phase::Autocommit;
        if begins && failed_in_sql && elsewhere {
            self.transaction
                .lose("the script that opened it failed on the primary, which rolled it back");
        }
    }

    /// A statement that steers the transaction is heard by the user's instrumentation once, whether
    /// SQLite runs it here, there, or later.
    fn steer(&mut self, node: &Arc<Node>, control: &Control, sql: &str) -> QueryResult<()> {
        self.heard(sql, |conn| {
            let _muted = conn.local.mute();
            conn.control(node, control, sql)
        })
    }

    fn heard(
        &mut self,
        sql: &str,
        run: impl FnOnce(&mut Self) -> QueryResult<()>,
    ) -> QueryResult<()> {
        self.reporting_text(&StrQueryHelper::new(sql), run)
    }

    /// PRAGMAs within a forwarded script concern this connection as well.
    fn repeat_session_pragmas(&mut self, session: &[String]) -> QueryResult<()> {
        let _muted = self.local.mute();
        let in_transaction = self.phase() != Phase::Autocommit;
        // SQLite ignores `foreign_keys` inside a transaction, and so did the primary.
        for pragma in session.iter().filter(|pragma| !(in_transaction && sets_foreign_keys(pragma)))
        {
            self.local.batch_execute(pragma)?;
            self.settings = None;
        }
        Ok(())
    }
}

fn sets_foreign_keys(sql: &str) -> bool {
    let all = statements(sql);
    let pragma = match all.as_slice() {
        [only] => only.pragma(),
        _ => None,
    };
    pragma.is_some_and(|pragma| {
        pragma.name.eq_ignore_ascii_case("foreign_keys") && pragma.value.is_some()
    })
}

/// SQLite cannot say what a statement does to what the script has yet to make or to attach.
fn reclassify_by_what_is_made(all: &[SqlStatement<'_>], classes: &mut [Class]) {
    // Temporary tables hide others of their name; what is attached is looked at last.
    let (mut temporary, mut attached) = (Vec::new(), Vec::new());
    for (statement, class) in all.iter().zip(classes) {
        let is_of = |names: &[&str]| {
            statement
                .object_name()
                .is_some_and(|name| names.iter().any(|made| made.eq_ignore_ascii_case(name)))
        };
        match statement.verb() {
            Verb::TempSchema => temporary.extend(statement.created_name()),
            Verb::Attach => attached.extend(statement.attached_name()),
            Verb::Schema if statement.created_name().is_some() => {
                attached.extend(statement.created_name().filter(|_| class.writes_locally));
            }
            Verb::Change | Verb::Schema
                if statement.schema().is_none()
                    && (is_of(&temporary) || (class.guessed && is_of(&attached))) =>
            {
                class.access = Access::Local;
                class.writes_locally = true;
            }
            _ => {}
        }
    }
}
