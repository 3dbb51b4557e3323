//! Which writes are told to be lost.

use super::*;
use litefs_core::{Checksum, Txid};

fn at(txid: u64) -> Position {
    Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
}

fn write(primary: &str, txid: u64, request: Option<RequestId>) -> Acknowledged {
    let primary = primary.parse().ok();
    Acknowledged { primary, position: at(txid), request, reign: None, generation: 0 }
}

/// On the primary itself, in its reign that began there.
fn local(primary: &str, began: u64, txid: u64) -> Acknowledged {
    Acknowledged { reign: Some(at(began)), ..write(primary, txid, None) }
}

fn reign(node: &str, began: u64) -> Reign {
    Reign { node: node.into(), began: at(began) }
}

fn positions(lost: &[(u64, LostWrite)]) -> Vec<Position> {
    lost.iter().map(|(_, write)| write.position).collect()
}

#[test]
fn f7_what_lies_beyond_the_new_reigns_beginning_is_lost_unless_its_outcome_is_there() {
    let ledger = Ledger::new(Duration::from_secs(60));
    let (there, gone, early) = (RequestId::new(), RequestId::new(), RequestId::new());
    for (position, request) in [(5, None), (6, Some(there)), (7, Some(gone)), (8, None), (3, Some(early))] {
        ledger.note(write("a", position, request));
    }
    assert!(ledger.of_former().is_empty());
    ledger.next_generation();
    let former = ledger.of_former();
    assert_eq!(former.len(), 5);
    let lost = lost(&former, &[reign("b", 5)], &[], |id| (id != early).then_some(id == there));
    assert_eq!(positions(&lost), [at(7), at(8)]);
    assert_eq!(lost[0].1.request, Some(gone));
    ledger.settle(&former, &lost, 1);
    assert!(ledger.of_former().is_empty(), "told once");
    ledger.next_generation();
    assert_eq!(ledger.of_former().len(), 3, "the next failover may lose the others");
}

#[test]
fn f7_what_a_reign_has_lost_that_nobody_looked_at_is_lost_although_a_later_one_has_come_further() {
    let reigns = [reign("a", 1), reign("b", 5), reign("c", 20)];
    let lost_of = |write: Acknowledged| lost(&[(0, write)], &reigns, &[], |_| None).len();
    assert_eq!(lost_of(local("a", 1, 5)), 0);
    assert_eq!(lost_of(local("a", 1, 6)), 1, "b went on from 5");
    assert_eq!(lost_of(local("b", 5, 20)), 0, "b's own");
    assert_eq!(lost_of(local("b", 5, 21)), 1);
    assert_eq!(lost_of(local("c", 20, 30)), 0, "c's own");
    assert_eq!(lost_of(local("b", 3, 6)), 1, "a reign of b that is not in this history");
    assert_eq!(lost_of(local("d", 18, 20)), 0, "its row never came, but c has what it wrote");
    assert_eq!(lost_of(local("d", 18, 21)), 1);
}

/// A node that has just become the primary for the first time hears its name from LiteFS a moment later.
#[test]
fn f7_a_primarys_own_write_is_found_by_each_of_its_names() {
    let own: Vec<NodeName> = ["b", "machine"].map(|name| name.parse().unwrap()).into();
    let mine = |began, txid| Acknowledged { primary: None, ..local("b", began, txid) };
    let lost_of = |write: Acknowledged, reigns: &[Reign]| lost(&[(0, write)], reigns, &own, |_| None);
    for name in ["b", "machine"] {
        let reigns = [reign("a", 1), reign(name, 5)];
        assert_eq!(lost_of(mine(5, 6), &reigns), [], "{name}");
        assert_eq!(lost_of(Acknowledged { reign: None, ..mine(5, 6) }, &reigns), [], "{name}");
        let next = [reigns.as_slice(), &[reign("a", 7)]].concat();
        assert_eq!(lost_of(mine(5, 7), &next), [], "{name}");
        let gone = lost_of(mine(5, 8), &next);
        assert_eq!((gone.len(), gone[0].1.acknowledged_by.as_str()), (1, "b"));
    }
    assert_eq!(lost_of(mine(5, 6), &[reign("a", 1), reign("c", 5)]).len(), 1, "another node's reign");
}

#[test]
fn a_write_that_was_acknowledged_when_the_primary_had_changed_is_looked_at_by_itself() {
    let ledger = Ledger::new(Duration::from_secs(60));
    ledger.next_generation();
    let late = write("b", 9, None);
    assert_eq!(futures::FutureExt::now_or_never(ledger.late()), None);
    ledger.note(Acknowledged { generation: 1, ..late.clone() });
    assert_eq!(futures::FutureExt::now_or_never(ledger.late()), None);
    ledger.note(late);
    assert_eq!(futures::FutureExt::now_or_never(ledger.late()), Some(()));
    assert_eq!(ledger.of_former().len(), 1);
}

#[test]
fn the_ledger_is_bounded() {
    let ledger = Ledger::new(Duration::from_secs(60));
    for txid in 0..REMEMBERED as u64 + 10 {
        ledger.note(write("a", txid, None));
    }
    ledger.next_generation();
    let former = ledger.of_former();
    assert_eq!((former.len(), former[0].1.position), (REMEMBERED, at(10)));
}
