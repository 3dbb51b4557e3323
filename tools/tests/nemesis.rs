//! The nemesis for a few seconds, and with each of its promises broken on purpose.

use std::collections::HashMap;
use std::process::{Command, Output};
use std::sync::Mutex;

/// One machine runs three nodes at a time only.
static TURN: Mutex<()> = Mutex::new(());

fn attack(arguments: &[&str]) -> (Output, HashMap<String, u64>) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemesis"));
    let output = command.args(["--seed", "7"]).args(arguments).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let figures = figures.collect();
    (output, figures)
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn f9_writes_under_attack_are_applied_once_or_refused() {
    let (output, figures) = attack(&["--seconds", "6"]);
    assert!(output.status.success(), "{}", printed(&output));
    assert!(figures["acked"] > 100 && figures["failovers"] > 0, "{figures:?}");
    for wrong in [
        "lost_unreported",
        "falsely_reported",
        "duplicated",
        "stale_reads",
        "refused_applied",
        "invented",
        "torn",
    ] {
        assert_eq!(figures[wrong], 0, "{wrong}");
    }
}

#[test]
fn repeated_writes_of_unknown_outcome_are_detected() {
    let (output, figures) = attack(&["--seconds", "4", "--weaken", "retry-unknown"]);
    assert!(!output.status.success() && figures["duplicated"] > 0, "{}", printed(&output));
}

#[test]
fn unconfirmed_commits_are_detected() {
    let (output, figures) = attack(&["--seconds", "6", "--weaken", "proof"]);
    assert!(!output.status.success() && figures["lost_unreported"] > 0, "{}", printed(&output));
}

#[test]
fn reads_without_a_wait_are_detected() {
    let (output, figures) = attack(&["--seconds", "6", "--weaken", "eventual"]);
    assert!(!output.status.success() && figures["stale_reads"] > 0, "{}", printed(&output));
}
