//! Each expectation against each pair of positions, with and without a change of the role.

use CommitExpectation::{Advances, AdvancesFrom, Dropped, MayAdvance, Unchanged};
use NotConfirmed::{NotPrimary, RoleChanged, SamePosition, Unreadable};

use super::*;
use crate::{Checksum, Role, RoleState, Txid};

fn at(txid: u64) -> Position {
    Position::new(Txid::new(txid), Checksum::new(txid))
}

fn guard(before: Option<Position>) -> CommitGuard {
    let role = RoleState::new(Role::Primary, 3);
    CommitGuard::begin(role.stamp(), before)
}

type Now = Result<Position, &'static str>;

const GONE: Now = Err("the mount is gone");

fn gone() -> NotConfirmed {
    Unreadable("the mount is gone".into())
}

#[test]
fn each_expectation_is_held_against_the_position() {
    // The position before the work, the expectation, the position now; what is confirmed, and
    // what is noted as not confirmed.
    let table = [
        (Some(at(6)), Unchanged, Ok(at(6)), Ok(at(6)), None),
        (Some(at(6)), Unchanged, Ok(at(7)), Ok(at(7)), None),
        (Some(at(6)), Unchanged, GONE, Err(gone()), None),
        (None, Unchanged, Ok(at(6)), Ok(at(6)), None),
        (Some(at(6)), Advances, Ok(at(7)), Ok(at(7)), None),
        (Some(at(6)), Advances, Ok(at(6)), Err(SamePosition(at(6))), Some(at(6))),
        (Some(at(6)), Advances, GONE, Err(gone()), Some(at(6))),
        (None, Advances, Ok(at(1)), Ok(at(1)), None),
        (None, Advances, GONE, Err(gone()), None),
        // Another connection has moved the position from 6 to 7 before the commit.
        (Some(at(6)), AdvancesFrom(at(7)), Ok(at(8)), Ok(at(8)), None),
        (Some(at(6)), AdvancesFrom(at(7)), Ok(at(7)), Err(SamePosition(at(7))), Some(at(7))),
        (Some(at(6)), AdvancesFrom(at(7)), GONE, Err(gone()), Some(at(7))),
        (Some(at(6)), MayAdvance, Ok(at(6)), Ok(at(6)), None),
        (Some(at(6)), MayAdvance, Ok(at(7)), Ok(at(7)), None),
        (Some(at(6)), MayAdvance, GONE, Err(gone()), None),
        (Some(at(6)), Dropped, Ok(at(7)), Err(NotConfirmed::Dropped), Some(at(7))),
        (Some(at(6)), Dropped, GONE, Err(gone()), Some(at(6))),
    ];
    for (before, expectation, position, confirmed, noted) in table {
        let unconfirmed = UnconfirmedCommit::default();
        let after = AfterCommit { position, role_held: true };
        let case = format!("{before:?} {expectation:?} {position:?}");
        assert_eq!(guard(before).confirm(expectation, after, &unconfirmed), confirmed, "{case}");
        assert_eq!(unconfirmed.position(), noted, "{case}");
        // After a change of the role nothing is confirmed, and the same is noted.
        let unconfirmed = UnconfirmedCommit::default();
        let after = AfterCommit { position, role_held: false };
        let lost = match (expectation, position) {
            (Unchanged, _) => NotPrimary,
            (_, GONE) => gone(),
            _ => RoleChanged,
        };
        assert_eq!(guard(before).confirm(expectation, after, &unconfirmed), Err(lost), "{case}");
        assert_eq!(unconfirmed.position(), noted, "{case}");
    }
}

#[test]
fn after_a_dropped_commit_nothing_is_confirmed_where_it_began() {
    let unconfirmed = UnconfirmedCommit::default();
    let confirm = |expectation, position| {
        let after = AfterCommit { position: Ok::<_, String>(position), role_held: true };
        guard(Some(at(6))).confirm(expectation, after, &unconfirmed)
    };
    assert_eq!(confirm(Unchanged, at(6)), Ok(at(6)));
    assert_eq!(confirm(AdvancesFrom(at(6)), at(6)), Err(SamePosition(at(6))));
    for expectation in [Unchanged, MayAdvance, AdvancesFrom(at(5))] {
        let result = confirm(expectation, at(6));
        assert_eq!(result, Err(SamePosition(at(6))), "{expectation:?}");
        assert_eq!(confirm(expectation, at(7)), Ok(at(7)), "{expectation:?}: it has moved on");
    }
}

#[test]
fn a_position_read_under_the_lock_replaces_the_first() {
    let unconfirmed = UnconfirmedCommit::default();
    let after = AfterCommit { position: Ok::<_, String>(at(7)), role_held: true };
    let guard = guard(Some(at(6))).locked_at(Some(at(7)));
    assert_eq!(guard.confirm(Advances, after, &unconfirmed), Err(SamePosition(at(7))));
}

#[test]
fn expectations_of_several_commits_add_up() {
    let table = [
        (Unchanged, Unchanged, Unchanged),
        (Unchanged, MayAdvance, MayAdvance),
        (Unchanged, AdvancesFrom(at(6)), AdvancesFrom(at(6))),
        (AdvancesFrom(at(6)), Unchanged, AdvancesFrom(at(6))),
        (AdvancesFrom(at(6)), MayAdvance, AdvancesFrom(at(6))),
        (AdvancesFrom(at(6)), AdvancesFrom(at(7)), AdvancesFrom(at(7))),
        (AdvancesFrom(at(6)), AdvancesFrom(at(6)), Dropped),
        (Advances, AdvancesFrom(at(6)), AdvancesFrom(at(6))),
        (MayAdvance, Advances, Advances),
        (Dropped, AdvancesFrom(at(6)), Dropped),
        (Unchanged, Dropped, Dropped),
    ];
    for (earlier, later, both) in table {
        assert_eq!(earlier.and_then(later), both, "{earlier:?}, {later:?}");
    }
}
