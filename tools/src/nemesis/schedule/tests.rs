//! Properties of schedules.

use super::*;

const LENGTH: Duration = Duration::from_secs(600);

#[test]
fn a_seed_determines_the_schedule() {
    assert_eq!(
        schedule(7, LENGTH, FaultSet::Everything),
        schedule(7, LENGTH, FaultSet::Everything)
    );
    assert_ne!(
        schedule(7, LENGTH, FaultSet::Everything),
        schedule(8, LENGTH, FaultSet::Everything)
    );
}

#[test]
fn a_long_run_has_every_kind_of_fault() {
    let mut kinds: Vec<_> = schedule(1, LENGTH, FaultSet::Everything)
        .iter()
        .map(|step| std::mem::discriminant(&step.fault))
        .collect();
    let mut different = Vec::new();
    kinds.retain(|kind| {
        let new = !different.contains(kind);
        different.push(*kind);
        new
    });
    assert_eq!(kinds.len(), 15);
}

#[test]
fn faults_of_roles_and_processes_do_not_overlap() {
    let steps = schedule(3, LENGTH, FaultSet::Everything);
    let roles: Vec<_> = steps.iter().filter(|step| step.fault.concerns_roles()).collect();
    assert!(roles.windows(2).all(|pair| pair[0].at + pair[0].lasts < pair[1].at));
}

#[test]
fn beside_a_real_litefs_only_our_processes_have_faults() {
    use Fault::{BreakLink, CutReplies, CutRequests, HandOff, Kill, Pause, Promote, SlowLink};
    let steps = schedule(1, LENGTH, FaultSet::Processes);
    let ours = |step: &&Step| {
        let alone = matches!(
            step.fault,
            Kill { successor: None, .. } | Pause { successor: None, .. } | Promote { .. } | HandOff
        );
        alone || matches!(step.fault, CutRequests | CutReplies | SlowLink { .. } | BreakLink)
    };
    assert_eq!(steps.iter().filter(ours).count(), steps.len());
    assert!(steps.iter().any(|step| step.fault == HandOff));
}
