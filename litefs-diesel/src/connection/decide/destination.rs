//! Where a statement runs: a total, pure function.

use super::phase::Phase;
use crate::access::{Access, Class};
use crate::router::Route;

/// Where a statement runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connection) enum Destination {
    /// On the local file.
    Local,
    /// On the primary, on its own.
    Primary,
    /// On this replica's snapshot if its result there can be the primary's, else in a transaction
    /// on the primary that has to be opened first.
    Move,
    /// In the transaction that is open on the primary.
    Session,
    /// Nowhere: the router refuses it.
    Reject(String),
    /// Nowhere: it needs the primary's database and something that exists on this connection only.
    Split,
    /// Nowhere: the transaction is gone.
    Lost,
    /// Nowhere: the node is not the primary any more, and the transaction is open on its file.
    Demoted,
}

/// `route` is asked only where there is a choice.
pub(in crate::connection) fn destination(
    class: Class,
    writable: bool,
    phase: Phase,
    route: impl FnOnce() -> Route,
) -> Destination {
    match (phase, class.access) {
        (Phase::Lost, _) => return Destination::Lost,
        // A rollback on the primary would not undo it.
        (Phase::Remote | Phase::Speculating, Access::Local) if class.writes_locally => {
            return Destination::Split;
        }
        (_, Access::Local) => return Destination::Local,
        (Phase::Remote | Phase::Speculating, _) if class.split => return Destination::Split,
        (Phase::Remote, _) => return Destination::Session,
        (Phase::PendingRemote, _) => return Destination::Move,
        (Phase::Speculating, _) => {
            return match route() {
                Route::Reject(reason) => Destination::Reject(reason),
                _ => Destination::Move,
            };
        }
        (Phase::LocalWrites, Access::Write) if !writable => return Destination::Demoted,
        // Its reads belong to the snapshot that is open, wherever a router would send them.
        (Phase::LocalWrites, _) => return Destination::Local,
        _ => {}
    }
    match route() {
        Route::Reject(reason) => Destination::Reject(reason),
        Route::Local => Destination::Local,
        Route::Primary if writable => Destination::Local,
        Route::Primary if class.split => Destination::Split,
        Route::Primary if phase == Phase::Autocommit => Destination::Primary,
        Route::Primary => Destination::Move,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_answer() {
        use Access::{Local, Read, Write};
        use Phase::{Autocommit, LocalReads, LocalWrites, Lost, Pending, Remote};
        let of = |access, writable, phase| {
            let class = Class { access, ..Class::NOTHING };
            let route = || if access == Write { Route::Primary } else { Route::Local };
            destination(class, writable, phase, route)
        };
        for writable in [false, true] {
            for access in [Read, Write, Local] {
                assert_eq!(of(access, writable, Lost), Destination::Lost);
            }
            for phase in [Autocommit, Pending, LocalReads, LocalWrites, Remote] {
                assert_eq!(of(Local, writable, phase), Destination::Local);
            }
            for access in [Read, Write] {
                assert_eq!(of(access, writable, Remote), Destination::Session);
            }
            for phase in [Autocommit, Pending, LocalReads, LocalWrites] {
                assert_eq!(of(Read, writable, phase), Destination::Local);
            }
        }
        for phase in [Autocommit, Pending, LocalReads, LocalWrites] {
            assert_eq!(of(Write, true, phase), Destination::Local);
        }
        assert_eq!(of(Write, false, Autocommit), Destination::Primary);
        assert_eq!(of(Write, false, Pending), Destination::Move);
        assert_eq!(of(Write, false, LocalReads), Destination::Move);
        assert_eq!(of(Write, false, LocalWrites), Destination::Demoted);
    }
}
