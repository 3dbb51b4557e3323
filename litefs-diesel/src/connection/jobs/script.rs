//! Several statements without parameters, or one that controls the transaction.

use std::sync::Arc;

use diesel::connection::StrQueryHelper;
use diesel::result::QueryResult;
use litefs_rpc::sqlite::sql::{SqlStatement, Verb, statements};
use litefs_rpc::wire::Command;

use super::super::LiteFsConnection;
use super::super::decide::destination::Destination;
use super::super::decide::phase::Phase;
use super::super::driver::Job;
use super::super::errors::{read_only, refusal};
use super::super::local::is_writable;
use crate::access::{Access, Class, Control, ScriptPlan, plan_script};
use crate::failure::Failure;
use crate::node::Node;

struct ScriptJob<'a> {
    sql: &'a str,
    /// The PRAGMAs in it that apply to this connection as well.
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
            // SQLite ignores it inside a transaction, but the local connection is outside of one.
            return conn.reporting_script(self.sql, |_| Ok(()));
        }
        conn.local.batch_execute(self.sql)?;
        match conn.remote.node().cloned().filter(|_| class.sets_session && remote) {
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
        conn.reporting_script(self.sql, |conn| {
            // Diesel refuses a text with a NUL before SQLite sees it.
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
    /// Runs several statements without parameters, or one that controls the transaction.
    pub(in crate::connection) fn run_script(
        &mut self,
        node: &Arc<Node>,
        sql: &str,
    ) -> QueryResult<()> {
        self.follow_role(node)?;
        let all = statements(sql);
        let (_, mut classifier) = self.classifier();
        let mut classes: Vec<_> =
            all.iter().map(|statement| classifier.classify_statement(statement)).collect();
        reclassify_new_names(&all, &mut classes);
        if let Some(refused) = all.iter().zip(&classes).find(|(_, class)| class.refused) {
            return Err(refusal(refused.0.sql));
        }
        if let [Class { query_only: true, .. }] = classes[..] {
            return self.local.query_only_pragma(sql).map(drop);
        }
        let texts: Vec<_> =
            all.iter().map(|statement| statement.sql).zip(classes.iter().copied()).collect();
        let answered = self
            .session
            .answer_before_writes(&mut self.local, is_writable(node), &texts)?
            .map(|texts| texts.join("; "));
        let sql = answered.as_deref().unwrap_or(sql);
        match plan_script(&all, &classes, self.phase() != Phase::Autocommit) {
            ScriptPlan::Control(control) => self.control_once(node, &control, sql),
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
            // If it ran here up to its first write, it could leave a transaction open.
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

    /// A script that opens a transaction and fails leaves it open. If it ran on the primary, that
    /// transaction is rolled back already, and the application has to learn that.
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

    /// The application's instrumentation sees a transaction control statement once, whether SQLite
    /// runs it here, on the primary, or later.
    fn control_once(&mut self, node: &Arc<Node>, control: &Control, sql: &str) -> QueryResult<()> {
        self.reporting_script(sql, |conn| {
            let _muted = conn.local.mute();
            conn.control(node, control, sql)
        })
    }

    fn reporting_script(
        &mut self,
        sql: &str,
        run: impl FnOnce(&mut Self) -> QueryResult<()>,
    ) -> QueryResult<()> {
        self.reporting_text(&StrQueryHelper::new(sql), run)
    }

    /// PRAGMAs within a forwarded script apply to this connection as well.
    fn repeat_session_pragmas(&mut self, session: &[String]) -> QueryResult<()> {
        let _muted = self.local.mute();
        let in_transaction = self.phase() != Phase::Autocommit;
        // SQLite ignores `foreign_keys` inside a transaction, on the primary too.
        for pragma in session.iter().filter(|pragma| !(in_transaction && sets_foreign_keys(pragma)))
        {
            self.local.batch_execute(pragma)?;
            self.session.settings_changed();
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

/// SQLite cannot classify a statement about a table that an earlier statement of the script makes,
/// or about a database that one attaches.
fn reclassify_new_names(all: &[SqlStatement<'_>], classes: &mut [Class]) {
    // SQLite resolves a name to a temporary table first, and to an attached database last.
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
