//! Where a script runs: the classes of its statements together.

use litefs_rpc::sqlite::sql::SqlStatement;

use super::class::{Access, Class};
use super::control::Control;

/// What to do with the text of `batch_execute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScriptPlan {
    /// One statement that controls the transaction.
    Control(Control),
    /// Runs here, unchanged.
    Local { writes_locally: bool, sets_session: bool, reads: bool },
    /// Changes the database: all of it runs on the primary. `session` contains the PRAGMAs that
    /// also concern this connection. `split`: it also needs temporary or attached tables, which
    /// exist only here.
    Write { session: Vec<String>, split: bool },
    /// Cannot run as one script.
    Refused(String),
}

/// Plans a script. All of it runs on one node, or it is refused.
///
/// `in_transaction`: one is open, which the script must not end.
pub(crate) fn plan_script(
    statements: &[SqlStatement<'_>],
    classes: &[Class],
    in_transaction: bool,
) -> ScriptPlan {
    if let ([statement], Some(control)) = (statements, statements.first().and_then(Control::of)) {
        let _ = statement;
        return ScriptPlan::Control(control);
    }
    let any = |test: fn(&Class) -> bool| classes.iter().any(test);
    if any(|class| class.control) && !is_balanced(statements, in_transaction) {
        return ScriptPlan::Refused(
            "a script may contain a transaction, but must both open and close it: a statement \
             elsewhere could end up inside or outside of it unseen"
                .into(),
        );
    }
    let reads = any(|class| class.access == Access::Read);
    let (writes_locally, sets_session) =
        (any(|class| class.writes_locally), any(|class| class.sets_session));
    if !any(|class| class.access == Access::Write) {
        return ScriptPlan::Local { writes_locally, sets_session, reads };
    }
    let session = statements.iter().zip(classes).filter(|(_, class)| class.sets_session);
    let session = session.map(|(statement, _)| statement.sql.to_owned()).collect();
    ScriptPlan::Write { session, split: writes_locally || any(|class| class.split) }
}

/// Whether every transaction that the script opens is closed by it, and no other.
fn is_balanced(statements: &[SqlStatement<'_>], in_transaction: bool) -> bool {
    let mut savepoints = Vec::new();
    let mut open = false;
    for control in statements.iter().filter_map(Control::of) {
        match control {
            Control::Begin(_) if open || !savepoints.is_empty() => return false,
            Control::Begin(_) => open = true,
            // Without a BEGIN of its own it would end what is open around the script.
            Control::Commit | Control::Rollback
                if !open && (in_transaction || savepoints.is_empty()) =>
            {
                return false;
            }
            Control::Commit | Control::Rollback => {
                open = false;
                savepoints.clear();
            }
            Control::Savepoint(name) => savepoints.push(name),
            Control::Release(name) => {
                match savepoints.iter().rposition(|s| s.eq_ignore_ascii_case(&name)) {
                    Some(at) => savepoints.truncate(at),
                    None => return false,
                }
            }
            Control::RollbackTo(name)
                if !savepoints.iter().any(|s| s.eq_ignore_ascii_case(&name)) =>
            {
                return false;
            }
            Control::RollbackTo(_) => {}
        }
    }
    !open && savepoints.is_empty()
}

#[cfg(test)]
mod tests {
    use litefs_rpc::sqlite::sql::statements;
    use litefs_rpc::wire::BeginMode;

    use super::super::classify::classify;
    use super::*;

    fn plan(sql: &str) -> ScriptPlan {
        let all = statements(sql);
        let classes: Vec<_> = all.iter().map(|s| classify(s, None)).collect();
        plan_script(&all, &classes, false)
    }

    #[test]
    fn a_script_runs_on_one_node() {
        assert_eq!(plan("BEGIN"), ScriptPlan::Control(Control::Begin(None)));
        assert_eq!(
            plan("BEGIN EXCLUSIVE"),
            ScriptPlan::Control(Control::Begin(Some(BeginMode::Exclusive)))
        );
        assert_eq!(
            plan("ROLLBACK TO SAVEPOINT a"),
            ScriptPlan::Control(Control::RollbackTo("a".into()))
        );
        assert_eq!(
            plan("INSERT INTO t VALUES (1); SELECT 1"),
            ScriptPlan::Write { session: vec![], split: false }
        );
        assert_eq!(
            plan("PRAGMA foreign_keys=OFF; DROP TABLE t"),
            ScriptPlan::Write { session: vec!["PRAGMA foreign_keys=OFF".into()], split: false }
        );
        let local = |reads| ScriptPlan::Local { writes_locally: false, sets_session: false, reads };
        assert_eq!(plan("PRAGMA busy_timeout=1; PRAGMA cache_size=1"), local(false));
        assert_eq!(plan("BEGIN; SELECT 1; COMMIT"), local(true));
        assert!(matches!(plan("BEGIN; INSERT INTO t VALUES (1)"), ScriptPlan::Refused(_)));
        assert!(matches!(plan("INSERT INTO t VALUES (1); COMMIT"), ScriptPlan::Refused(_)));
        assert!(matches!(
            plan("CREATE TEMP TABLE a(x); DELETE FROM t"),
            ScriptPlan::Write { split: true, .. }
        ));
        assert!(matches!(plan("SAVEPOINT a; DELETE FROM t; RELEASE a"), ScriptPlan::Write { .. }));
    }
}
