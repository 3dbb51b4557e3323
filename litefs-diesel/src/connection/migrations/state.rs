//! How far a connection has come in what Diesel's harness does.

use litefs_rpc::wire::RowSet;

/// How far the connection has come in what Diesel's harness does.
#[derive(Debug, Default)]
pub(in crate::connection) struct Migrations {
    stage: Stage,
    /// The versions that were applied when the harness asked, and those that it has applied since;
    /// `None` once other nodes have applied one in between.
    list: Option<RowSet>,
    /// The open transaction, or the statement that runs, has changed a version's row.
    versioned: bool,
}

/// The stage of a migration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// No migration.
    #[default]
    Idle,
    /// The harness has asked which versions are applied.
    Listed,
    /// A transaction has begun after that, and no statement has run in it.
    Begun,
    /// The script of the transaction waits for the version.
    Held(String),
    /// The script runs.
    Running,
}

impl Migrations {
    /// The harness has the list of versions.
    pub(super) fn listed(list: Option<RowSet>) -> Self {
        Self { stage: Stage::Listed, list, versioned: false }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Whether a transaction has begun whose script has not run.
    pub(super) fn awaits_script(&self) -> bool {
        matches!(self.stage, Stage::Begun | Stage::Held(_))
    }

    /// The stage, for a transition out of it. Idle until [`enter`](Self::enter).
    pub(super) fn leave(&mut self) -> Stage {
        std::mem::take(&mut self.stage)
    }

    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// A transaction begins: it has changed no version yet.
    pub(super) fn begin(&mut self) {
        self.versioned = false;
        self.stage = Stage::Begun;
    }

    /// Whether the versions are still those that the harness has seen.
    pub(super) fn is_current(&self, now: &RowSet) -> bool {
        self.list.as_ref() == Some(now)
    }

    /// Whether no other node has applied a version since the harness asked.
    pub(super) fn has_list(&self) -> bool {
        self.list.is_some()
    }

    /// Sets the list after a change of it; `None` once another node has changed it.
    pub(super) fn set_list(&mut self, list: Option<RowSet>) {
        self.list = list;
    }

    pub(super) fn is_versioned(&self) -> bool {
        self.versioned
    }

    pub(super) fn set_versioned(&mut self, versioned: bool) {
        self.versioned = versioned;
    }
}
