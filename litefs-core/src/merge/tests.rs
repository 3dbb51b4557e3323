//! Tests of the merge: a table of all pairs of observations, and the special cases.

use super::*;
use crate::evidence::ObservationSeq;
use crate::mount::Probe;
use crate::{InfoAnswer, NodeName, Observation, Owner};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A node called `me` on a LiteFS mount, about which nobody has said anything.
fn here() -> Evidence {
    let mut evidence = Evidence::new(Some(name("me")), false);
    evidence.record_probe(Probe::Marker);
    evidence
}

fn info(claim: Claim) -> Observation {
    Observation::Info(InfoAnswer { claim, own_name: None, owner: Owner::Unclear })
}

/// Everything a source can say, in the order of the table.
fn sayings() -> Vec<(&'static str, Observation)> {
    let replica = |primary: &str| Claim::Replica(name(primary));
    vec![
        ("stream: primary", Observation::Stream(Claim::Primary)),
        ("stream: replica of a", Observation::Stream(replica("a"))),
        ("stream: no primary", Observation::Stream(Claim::NoPrimary)),
        ("stream: replica of me", Observation::Stream(replica("me"))),
        ("stream: lost", Observation::StreamLost),
        ("info: primary", info(Claim::Primary)),
        ("info: replica of b", info(replica("b"))),
        ("info: no primary", info(Claim::NoPrimary)),
        ("info: replica of me", info(replica("me"))),
        ("info: unreachable", Observation::InfoUnreachable),
        ("file: c", Observation::PrimaryFile(Some(name("c")))),
        ("file: absent", Observation::PrimaryFile(None)),
        ("file: me", Observation::PrimaryFile(Some(name("me")))),
        ("row: rejected", Observation::RowWriteRejected),
    ]
}

/// The role after the row was said, and then the column: `P`rimary, a replica of `a`, `b` or `c`,
/// or unknown (`?`).
///
/// Columns as rows: stream P, a, none, me, lost; info P, b, none, me, unreachable; file c, absent,
/// me; row rejected.
const TABLE: [&str; 14] = [
    "Pa??? Pb??P cP? ?", // stream: primary
    "Pa??? Pb??a ca? a", // stream: replica of a
    "Pa??? Pb??? c?? ?", // stream: no primary
    "Pa??? Pb??? c?? ?", // stream: replica of me
    "Pa??? Pb??? c?? ?", // stream: lost
    "Pa??P Pb??? cP? ?", // info: primary
    "Pa??b Pb??? cb? b", // info: replica of b
    "Pa??? Pb??? c?? ?", // info: no primary
    "Pa??? Pb??? c?? ?", // info: replica of me
    "Pa??? Pb??? c?? ?", // info: unreachable
    "Pa??c Pb??c c?? c", // file: c
    "Pa??? Pb??? c?? ?", // file: absent
    "Pa??? Pb??? c?? ?", // file: me
    "Pa??? Pb??? c?? ?", // row: rejected
];

fn role(letter: char) -> Role {
    match letter {
        'P' => Role::Primary,
        '?' => Role::Unknown,
        primary => Role::Replica { primary: name(&primary.to_string()) },
    }
}

fn table() -> Vec<Vec<Role>> {
    TABLE.iter().map(|row| row.chars().filter(|c| *c != ' ').map(role).collect()).collect()
}

#[test]
fn d15_every_pair_of_sources_in_either_order_has_its_answer() {
    let (sayings, table) = (sayings(), table());
    for (i, (first, one)) in sayings.iter().enumerate() {
        assert_eq!(table[i].len(), sayings.len());
        for (j, (second, other)) in sayings.iter().enumerate() {
            let mut evidence = here();
            evidence.apply(ObservationSeq(1), one.clone());
            evidence.apply(ObservationSeq(2), other.clone());
            assert_eq!(merge(&evidence), table[i][j], "{first}, then {second}");
        }
    }
}

#[test]
fn d15_an_answer_that_arrives_late_counts_as_of_when_it_was_asked_for() {
    let (sayings, table) = (sayings(), table());
    let source = |saying: &str| saying.split(':').next().map(str::to_owned);
    let timeless = |saying: &str| saying.ends_with("lost") || saying.ends_with("unreachable");
    for (i, (first, one)) in sayings.iter().enumerate() {
        for (j, (second, other)) in sayings.iter().enumerate() {
            if source(first) == source(second) || timeless(first) || timeless(second) {
                continue;
            }
            let mut evidence = here();
            evidence.apply(ObservationSeq(2), other.clone());
            evidence.apply(ObservationSeq(1), one.clone());
            assert_eq!(merge(&evidence), table[i][j], "{first}, but heard after {second}");
        }
    }
}

#[test]
fn d3_an_absent_file_alone_is_unknown() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::PrimaryFile(None));
    assert_eq!(merge(&evidence), Role::Unknown);
}

#[test]
fn d5_without_litefs_the_node_stands_alone_and_after_it_nothing_is_known() {
    for (saying, observation) in sayings() {
        let mut never = Evidence::new(None, false);
        never.apply(ObservationSeq(1), observation.clone());
        assert_eq!(merge(&never), Role::Standalone, "{saying}");
        for probe in [Probe::Plain, Probe::Gone, Probe::Dead] {
            let mut lost = here();
            lost.record_probe(probe);
            lost.apply(ObservationSeq(1), observation.clone());
            assert_eq!(merge(&lost), Role::Unknown, "{saying}, {probe:?}");
        }
        let mut remembered = Evidence::new(None, true);
        remembered.apply(ObservationSeq(1), observation);
        assert_eq!(merge(&remembered), Role::Unknown, "{saying}");
    }
}

#[test]
fn a_dead_mount_is_litefs_even_if_it_was_never_seen_alive() {
    let mut evidence = Evidence::new(None, false);
    evidence.record_probe(Probe::Dead);
    assert_eq!(merge(&evidence), Role::Unknown);
    evidence.record_probe(Probe::Plain);
    assert_eq!(merge(&evidence), Role::Unknown);
}

#[test]
fn a_look_that_fails_for_another_reason_changes_nothing() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Primary));
    evidence.record_probe(Probe::Unclear);
    assert_eq!(merge(&evidence), Role::Primary);
}

#[test]
fn a_claim_that_was_contradicted_never_comes_back() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), info(Claim::Primary));
    evidence.apply(ObservationSeq(2), Observation::Stream(Claim::NoPrimary));
    evidence.apply(ObservationSeq(3), Observation::StreamLost);
    assert_eq!(merge(&evidence), Role::Unknown, "the old answer of /info came back");

    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Primary));
    evidence.apply(ObservationSeq(2), info(Claim::NoPrimary));
    evidence.apply(ObservationSeq(3), Observation::InfoUnreachable);
    assert_eq!(merge(&evidence), Role::Unknown, "the old word of the stream came back");
    assert!(!evidence.stream_is_current());

    let mut evidence = here();
    evidence.apply(ObservationSeq(2), Observation::Stream(Claim::NoPrimary));
    evidence.apply(ObservationSeq(3), Observation::StreamLost);
    evidence.apply(ObservationSeq(1), info(Claim::Primary));
    assert_eq!(merge(&evidence), Role::Unknown, "an answer that was overtaken on its way counted");
}

#[test]
fn sources_that_agree_stand_in_for_each_other() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Primary));
    evidence.apply(ObservationSeq(2), info(Claim::Primary));
    evidence.apply(ObservationSeq(3), Observation::InfoUnreachable);
    assert_eq!(merge(&evidence), Role::Primary);
    evidence.apply(ObservationSeq(4), info(Claim::Primary));
    evidence.apply(ObservationSeq(5), Observation::StreamLost);
    assert_eq!(merge(&evidence), Role::Primary);
}

#[test]
fn a_rejected_write_is_overruled_by_a_fresher_primary_claim_only() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Primary));
    evidence.apply(ObservationSeq(3), Observation::RowWriteRejected);
    evidence.apply(ObservationSeq(2), info(Claim::Primary));
    assert_eq!(merge(&evidence), Role::Unknown);
    evidence.apply(ObservationSeq(4), info(Claim::Primary));
    assert_eq!(merge(&evidence), Role::Primary);
}

#[test]
fn a_foreign_litefs_has_no_say() {
    let mut evidence = here();
    evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Primary));
    let foreign =
        InfoAnswer { claim: Claim::Primary, own_name: Some(name("x")), owner: Owner::OtherMount };
    evidence.apply(ObservationSeq(2), Observation::Info(foreign));
    assert_eq!(merge(&evidence), Role::Unknown);
    assert_eq!(evidence.own_name, Some(name("me")));
    evidence.apply(ObservationSeq(3), Observation::PrimaryFile(Some(name("c"))));
    assert_eq!(merge(&evidence), role('c'));
}

#[test]
fn what_a_peer_reports_asks_for_a_confirmation_and_changes_nothing() {
    let reports = [
        Observation::PeerUnreachable { node: name("a") },
        Observation::PeerNotPrimary { node: name("a"), hint: Some(name("b")) },
    ];
    for report in reports {
        let mut evidence = here();
        evidence.apply(ObservationSeq(1), Observation::Stream(Claim::Replica(name("a"))));
        assert!(evidence.apply(ObservationSeq(2), report));
        assert_eq!(merge(&evidence), role('a'));
    }
}
