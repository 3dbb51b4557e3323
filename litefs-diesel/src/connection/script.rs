//! The life of a script, and of the statements that steer the transaction.

use std::sync::Arc;

use diesel::connection::{SimpleConnection, StrQueryHelper};
use diesel::result::QueryResult;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb, statements};
use litefs_rpc::wire::Command;

use super::LiteFsConnection;
use super::destination::{Destination, Phase};
use super::run::{TURNS, changed_again, no_place_for, refusal};
use crate::Failure;
use crate::access::{Access, Class, Control, ScriptPlan, plan_script};
use crate::node::Node;
use crate::router::Route;

impl LiteFsConnection {
    /// Several statements without parameters, or one that steers the transaction.
    pub(super) fn run_script(&mut self, node: &Arc<Node>, sql: &str) -> QueryResult<()> {
        self.follow_role(node)?;
        let all = statements(sql);
        let mut classes: Vec<_> = all.iter().map(|statement| self.classify_statement(statement)).collect();
        reclassify_by_what_is_made(&all, &mut classes);
        if let Some(refused) = all.iter().zip(&classes).find(|(_, class)| class.refused) {
            return Err(refusal(refused.0.sql));
        }
        if let [Class { query_only: true, .. }] = classes[..] {
            return self.query_only_pragma(sql).map(drop);
        }
        let texts: Vec<_> = all.iter().map(|statement| statement.sql).zip(classes.iter().copied()).collect();
        let answered = self.answered_before_writes(node, &texts)?.map(|texts| texts.join("; "));
        let sql = answered.as_deref().unwrap_or(sql);
        match plan_script(&all, &classes) {
            ScriptPlan::Control(control) => self.steer(node, &control, sql),
            ScriptPlan::Refused(reason) => Err(Failure::Denied.error(reason)),
            ScriptPlan::Local { writes_locally, sets_session, reads } => {
                let access = if reads { Access::Read } else { Access::Local };
                let any = |test: fn(&Class) -> bool| classes.iter().any(test);
                let calls_application = any(|class| class.calls_application);
                let (vacuums, copies) = (any(|class| class.vacuums), any(|class| class.copies));
                let class = Class { access, writes_locally, sets_session, ..Class::NOTHING };
                let class = Class { calls_application, vacuums, copies, ..class };
                self.script(node, class, sql, &[])
            }
            // Run here up to its first write, it could leave a transaction open.
            ScriptPlan::Write { .. } if self.read_only && all.len() > 1 => Err(super::read_only()),
            ScriptPlan::Write { session, split } => {
                let any = |test: fn(&Class) -> bool| classes.iter().any(test);
                let (counts, inserts) = (any(|class| class.counts), any(|class| class.inserts));
                let (access, writes_locally) = (Access::Write, split);
                let class = Class { access, writes_locally, split, counts, inserts, ..Class::NOTHING };
                let result = self.script(node, class, sql, &session);
                self.note_failed_script(&all, &result);
                result
            }
        }
    }

    /// A script that opens a transaction and fails leaves it open. Where it ran elsewhere, that transaction is rolled back
    /// already, and the connection must not go on as if there had been none.
    fn note_failed_script(&mut self, all: &[SqlStatement<'_>], result: &QueryResult<()>) {
        let begins = all.iter().any(|statement| matches!(Control::of(statement), Some(Control::Begin(_))));
        let failed_in_sql = result.as_ref().is_err_and(|error| Failure::of(error).is_none());
        let elsewhere = self.query_only && self.phase() == Phase::Autocommit;
        if begins && failed_in_sql && elsewhere {
            self.transaction.lose("the script that opened it failed on the primary, which rolled it back");
        }
    }

    /// A statement that steers the transaction is heard by the user's instrumentation once, whether SQLite runs it
    /// here, there, or later.
    fn steer(&mut self, node: &Arc<Node>, control: &Control, sql: &str) -> QueryResult<()> {
        self.heard(sql, |conn| {
            let _silent = conn.silence.keep();
            conn.control(node, control, sql)
        })
    }

    fn heard(&mut self, sql: &str, run: impl FnOnce(&mut Self) -> QueryResult<()>) -> QueryResult<()> {
        self.reporting_text(&StrQueryHelper::new(sql), run)
    }

    fn script(
        &mut self,
        node: &Arc<Node>,
        mut class: Class,
        sql: &str,
        session: &[String],
    ) -> QueryResult<()> {
        for _ in 0..TURNS {
            let phase = self.phase();
            self.check_query_only(class)?;
            let destination = match self.destination(node, class, phase, &|| sql.to_owned()) {
                Destination::Local => match self.prepare_local(node, class)? {
                    Route::Primary if phase == Phase::Pending => Destination::Move,
                    Route::Primary => Destination::Primary,
                    _ => Destination::Local,
                },
                other => other,
            };
            match destination {
                Destination::Local => {
                    let result = self.script_here(class, sql);
                    match self.conclude(node, &mut class, result)? {
                        Some(()) => return Ok(()),
                        None => self.follow_role(node)?,
                    }
                }
                Destination::Reject(reason) => return Err(Failure::Rejected.error(reason)),
                Destination::Split => return Err(no_place_for(class)),
                Destination::Lost => return Err(self.transaction.lost()),
                Destination::Demoted => return Err(self.demoted()),
                elsewhere => {
                    if self.script_elsewhere(node, class, &elsewhere, sql)? {
                        return self.repeat_session_pragmas(session);
                    }
                    self.follow_role(node)?;
                }
            }
        }
        Err(changed_again())
    }

    fn script_here(&mut self, class: Class, sql: &str) -> QueryResult<()> {
        if self.phase() == Phase::Remote && sets_foreign_keys(sql) {
            // SQLite ignores it inside a transaction; the local connection does not know that it is in one.
            return self.heard(sql, |_| Ok(()));
        }
        let ticket = self.autocommit_ticket(class);
        let result = if class.writes_locally {
            self.lifting_query_only(|conn| conn.local.batch_execute(sql))
        } else {
            self.local.batch_execute(sql)
        };
        self.ran_here(class);
        if result.is_ok() {
            self.prove(ticket)?;
        }
        if class.sets_session && self.phase() == Phase::Remote {
            let node = self.home.clone();
            result?;
            return node
                .map_or(Ok(()), |node| self.in_session(&node, Command::Script(sql.to_owned())).map(drop));
        }
        result
    }

    /// `false`: this node is the primary now, run it here.
    fn script_elsewhere(
        &mut self,
        node: &Arc<Node>,
        class: Class,
        destination: &Destination,
        sql: &str,
    ) -> QueryResult<bool> {
        let mut there = false;
        self.heard(sql, |conn| {
            // Diesel refuses it before SQLite sees it.
            std::ffi::CString::new(sql)?;
            let reply = conn.carry(node, class, destination, Command::Script(sql.to_owned()))?;
            if let Some(reply) = &reply {
                conn.remember(class.counts, class.inserts, reply.effects);
            }
            there = reply.is_some();
            Ok(())
        })?;
        Ok(there)
    }

    /// PRAGMAs within a forwarded script concern this connection as well.
    fn repeat_session_pragmas(&mut self, session: &[String]) -> QueryResult<()> {
        let _silent = self.silence.keep();
        let in_transaction = self.phase() != Phase::Autocommit;
        // SQLite ignores `foreign_keys` inside a transaction, and so did the primary.
        for pragma in session.iter().filter(|pragma| !(in_transaction && sets_foreign_keys(pragma))) {
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
    pragma.is_some_and(|pragma| pragma.name.eq_ignore_ascii_case("foreign_keys") && pragma.value.is_some())
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
