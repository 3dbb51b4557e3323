//! Routers: where a statement runs, as far as there is a choice.

use std::fmt;

use litefs_core::RoleKind;

use crate::access::Access;

/// Where a statement runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// On this node's file.
    Local,
    /// On the primary. On the primary itself this is the local file too.
    Primary,
    /// Nowhere: the statement fails with [`Failure::Rejected`](crate::Failure::Rejected) and this
    /// reason.
    Reject(String),
}

/// What a router may look at.
pub struct Situation<'a> {
    /// What the statement does.
    pub access: Access,
    /// What this node is.
    pub role: RoleKind,
    /// Whether a transaction is open on the connection.
    pub in_transaction: bool,
    pub(crate) sql: &'a dyn Fn() -> String,
}

impl Situation<'_> {
    /// The statement's text. Built on demand: routers that do not look at it cost nothing.
    #[must_use]
    pub fn sql(&self) -> String {
        (self.sql)()
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

/// Decides where statements run. Asked once per statement, except for those that can only be local
/// (session PRAGMAs, temporary tables) and for the rest of a transaction that has moved to the
/// primary.
///
/// ```
/// use litefs_diesel::{ForwardWrites, Route, Router, Situation};
///
/// /// Reads of the acknowledgement log must never be old; everything else as usual.
/// struct FreshLedger;
///
/// impl Router for FreshLedger {
///     fn route(&self, situation: &Situation<'_>) -> Route {
///         if situation.sql().contains("acknowledgement log") {
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

    /// Whether reads outside of transactions are [`Route::Local`] whatever they read. A router that
    /// says so is not asked about them, which makes the quickest statements a little quicker.
    /// Default `false`.
    fn reads_locally(&self) -> bool {
        false
    }
}

/// Reads here, writes on the primary. The default.
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

/// Nothing leaves this node; on a replica writes fail as SQLite fails them.
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

/// Reads here; writes only where they need not travel.
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
        let route = |router: &dyn Router, access, role| {
            router.route(&Situation { access, role, in_transaction: false, sql: &|| String::new() })
        };
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
