//! Routers: where a statement runs.

use std::fmt;

use litefs_core::RoleKind;

use crate::access::Access;

/// Where a statement runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// On this node's file.
    Local,
    /// On the primary. On the primary itself this is the local file too.
    Primary,
    /// Not at all: the statement fails with [`Failure::Rejected`](crate::Failure::Rejected) and
    /// this reason.
    Reject(String),
}

/// What a router decides by. [`new`](Self::new) makes one for a unit test of a router:
///
/// ```
/// use litefs_diesel::{Access, ForwardWrites, RoleKind, Route, Router, Situation};
///
/// let write = Situation::new(Access::Write, RoleKind::Replica).with_sql("DELETE FROM notes");
/// assert_eq!(ForwardWrites.route(&write), Route::Primary);
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Situation<'a> {
    /// What the statement does.
    pub access: Access,
    /// The role of this node.
    pub role: RoleKind,
    /// Whether a transaction is open on the connection.
    pub in_transaction: bool,
    sql: SqlText<'a>,
}

#[derive(Clone, Copy)]
enum SqlText<'a> {
    Built(&'a str),
    Build(&'a dyn Fn() -> String),
}

impl<'a> Situation<'a> {
    /// A statement outside of transactions, with empty text.
    #[must_use]
    pub fn new(access: Access, role: RoleKind) -> Self {
        Self { access, role, in_transaction: false, sql: SqlText::Built("") }
    }

    /// The same inside of a transaction.
    #[must_use]
    pub fn within_transaction(mut self) -> Self {
        self.in_transaction = true;
        self
    }

    /// The same with the text of the statement.
    #[must_use]
    pub fn with_sql(mut self, sql: &'a str) -> Self {
        self.sql = SqlText::Built(sql);
        self
    }

    /// The situation of a statement whose text is built if the router asks for it.
    pub(crate) fn of(
        access: Access,
        role: RoleKind,
        in_transaction: bool,
        sql: &'a dyn Fn() -> String,
    ) -> Self {
        Self { access, role, in_transaction, sql: SqlText::Build(sql) }
    }

    /// The statement's text. It is built by this call, so that routers that do not need it cost
    /// nothing.
    #[must_use]
    pub fn sql(&self) -> String {
        match self.sql {
            SqlText::Built(sql) => sql.to_owned(),
            SqlText::Build(build) => build(),
        }
    }
}

impl fmt::Debug for Situation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Situation")
            .field("access", &self.access)
            .field("role", &self.role)
            .field("in_transaction", &self.in_transaction)
            .finish_non_exhaustive()
    }
}

/// Decides where statements run. It is called once per statement, except for statements that can
/// only run locally (session PRAGMAs, temporary tables) and for the rest of a transaction that has
/// moved to the primary.
///
/// ```
/// use litefs_diesel::{ForwardWrites, Route, Router, Situation};
///
/// /// Reads of the ledger run on the primary, everything else as usual.
/// struct FreshLedger;
///
/// impl Router for FreshLedger {
///     fn route(&self, situation: &Situation<'_>) -> Route {
///         if situation.sql().contains("ledger") {
///             Route::Primary
///         } else {
///             ForwardWrites.route(situation)
///         }
///     }
/// }
/// ```
pub trait Router: Send + Sync + 'static {
    /// The statement's route.
    fn route(&self, situation: &Situation<'_>) -> Route;

    /// Whether all reads outside of transactions are [`Route::Local`]. If so,
    /// [`route`](Self::route) is not called for them, which makes the fastest statements a little
    /// faster. Called once, when the handle starts. Default `false`.
    fn reads_locally(&self) -> bool {
        false
    }
}

/// Reads on this node, writes on the primary. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForwardWrites;

impl Router for ForwardWrites {
    fn route(&self, situation: &Situation<'_>) -> Route {
        match situation.access {
            Access::Write => Route::Primary,
            Access::Read | Access::Local => Route::Local,
        }
    }

    fn reads_locally(&self) -> bool {
        true
    }
}

/// Everything on the primary, reads too.
#[derive(Debug, Clone, Copy, Default)]
pub struct EverythingOnPrimary;

impl Router for EverythingOnPrimary {
    fn route(&self, situation: &Situation<'_>) -> Route {
        match situation.access {
            Access::Read | Access::Write => Route::Primary,
            Access::Local => Route::Local,
        }
    }
}

/// Everything on this node. On a replica, writes fail as SQLite fails them on a read-only database.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalOnly;

impl Router for LocalOnly {
    fn route(&self, _: &Situation<'_>) -> Route {
        Route::Local
    }

    fn reads_locally(&self) -> bool {
        true
    }
}

/// Reads on this node; writes only on the primary itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RejectWrites;

impl Router for RejectWrites {
    fn route(&self, situation: &Situation<'_>) -> Route {
        match (situation.access, situation.role) {
            (Access::Write, RoleKind::Replica | RoleKind::Unknown) => {
                Route::Reject("this node is a replica and its router rejects writes".into())
            }
            _ => Route::Local,
        }
    }

    fn reads_locally(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m11_the_built_in_routers_are_total() {
        let route = |router: &dyn Router, access, role| router.route(&Situation::new(access, role));
        use Access::{Local, Read, Write};
        for role in [RoleKind::Standalone, RoleKind::Primary, RoleKind::Replica, RoleKind::Unknown]
        {
            let writable = matches!(role, RoleKind::Standalone | RoleKind::Primary);
            for access in [Read, Write, Local] {
                let forwarded = if access == Write { Route::Primary } else { Route::Local };
                assert_eq!(route(&ForwardWrites, access, role), forwarded);
                let moved = if access == Local { Route::Local } else { Route::Primary };
                assert_eq!(route(&EverythingOnPrimary, access, role), moved);
                assert_eq!(route(&LocalOnly, access, role), Route::Local);
                for router in
                    [&ForwardWrites as &dyn Router, &EverythingOnPrimary, &LocalOnly, &RejectWrites]
                {
                    let local = access == Read && router.reads_locally();
                    assert!(!local || route(router, access, role) == Route::Local);
                }
                let rejected = matches!(route(&RejectWrites, access, role), Route::Reject(_));
                assert_eq!(rejected, access == Write && !writable);
            }
        }
    }
}
