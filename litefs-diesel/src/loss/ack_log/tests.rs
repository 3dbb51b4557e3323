//! Which writes are reported as lost.

use super::*;
use litefs_core::{Checksum, Txid};

fn at(txid: u64) -> Position {
    Position { txid: Txid::new(txid), checksum: Checksum::new(txid) }
}

fn write(primary: &str, txid: u64, request: Option<RequestId>) -> Acknowledged {
    let primary = primary.parse().ok();
    Acknowledged { primary, position: at(txid), request, term: None, generation: 0 }
}

/// On the primary itself, in its term that began there.
fn local(primary: &str, term_start: u64, txid: u64) -> Acknowledged {
    Acknowledged { term: Some(at(term_start)), ..write(primary, txid, None) }
}

fn term(node: &str, term_start: u64) -> Term {
    Term { node: node.into(), term_start: at(term_start) }
}

fn positions(lost: &[(u64, LostWrite)]) -> Vec<Position> {
    lost.iter().map(|(_, write)| write.position).collect()
}

#[test]
fn f7_a_write_beyond_the_new_terms_start_is_lost() {
    let ack_log = AckLog::new(Duration::from_secs(60));
    let (there, gone, early) = (RequestId::new(), RequestId::new(), RequestId::new());
    for (position, request) in
        [(5, None), (6, Some(there)), (7, Some(gone)), (8, None), (3, Some(early))]
    {
        ack_log.note(write("a", position, request));
    }
    assert!(ack_log.previous().is_empty());
    ack_log.next_generation();
    let previous = ack_log.previous();
    assert_eq!(previous.len(), 5);
    let lost = lost(&previous, &[term("b", 5)], &[], |id| (id != early).then_some(id == there));
    assert_eq!(positions(&lost), [at(7), at(8)]);
    assert_eq!(lost[0].1.request, Some(gone));
    ack_log.checked(&previous, &lost, 1);
    assert!(ack_log.previous().is_empty(), "reported once");
    ack_log.next_generation();
    assert_eq!(ack_log.previous().len(), 3, "the next failover may lose the others");
}

#[test]
fn f7_a_write_that_any_later_term_lacks_is_lost() {
    let terms = [term("a", 1), term("b", 5), term("c", 20)];
    let lost_of = |write: Acknowledged| lost(&[(0, write)], &terms, &[], |_| None).len();
    assert_eq!(lost_of(local("a", 1, 5)), 0);
    assert_eq!(lost_of(local("a", 1, 6)), 1, "b went on from 5");
    assert_eq!(lost_of(local("b", 5, 20)), 0, "b's own");
    assert_eq!(lost_of(local("b", 5, 21)), 1);
    assert_eq!(lost_of(local("c", 20, 30)), 0, "c's own");
    assert_eq!(lost_of(local("b", 3, 6)), 1, "a term of b that is not in this history");
    assert_eq!(lost_of(local("d", 18, 20)), 0, "its row never came, but c has what it wrote");
    assert_eq!(lost_of(local("d", 18, 21)), 1);
}

/// A node that becomes the primary for the first time learns its name from LiteFS a moment later.
#[test]
fn f7_a_primarys_own_write_is_found_by_each_of_its_names() {
    let own: Vec<NodeName> = ["b", "machine"].map(|name| name.parse().unwrap()).into();
    let mine = |term_start, txid| Acknowledged { primary: None, ..local("b", term_start, txid) };
    let lost_of = |write: Acknowledged, terms: &[Term]| lost(&[(0, write)], terms, &own, |_| None);
    for name in ["b", "machine"] {
        let terms = [term("a", 1), term(name, 5)];
        assert_eq!(lost_of(mine(5, 6), &terms), [], "{name}");
        assert_eq!(lost_of(Acknowledged { term: None, ..mine(5, 6) }, &terms), [], "{name}");
        let next = [terms.as_slice(), &[term("a", 7)]].concat();
        assert_eq!(lost_of(mine(5, 7), &next), [], "{name}");
        let gone = lost_of(mine(5, 8), &next);
        assert_eq!((gone.len(), gone[0].1.acknowledged_by.as_str()), (1, "b"));
    }
    assert_eq!(lost_of(mine(5, 6), &[term("a", 1), term("c", 5)]).len(), 1, "another node's term");
}

#[test]
fn a_write_acknowledged_after_a_change_is_checked_at_once() {
    let ack_log = AckLog::new(Duration::from_secs(60));
    ack_log.next_generation();
    let late = write("b", 9, None);
    assert_eq!(futures::FutureExt::now_or_never(ack_log.late()), None);
    ack_log.note(Acknowledged { generation: 1, ..late.clone() });
    assert_eq!(futures::FutureExt::now_or_never(ack_log.late()), None);
    ack_log.note(late);
    assert_eq!(futures::FutureExt::now_or_never(ack_log.late()), Some(()));
    assert_eq!(ack_log.previous().len(), 1);
}

#[test]
fn the_log_is_bounded() {
    let ack_log = AckLog::new(Duration::from_secs(60));
    for txid in 0..MAX_ENTRIES as u64 + 10 {
        ack_log.note(write("a", txid, None));
    }
    ack_log.next_generation();
    let previous = ack_log.previous();
    assert_eq!((previous.len(), previous[0].1.position), (MAX_ENTRIES, at(10)));
}
