//! What a statement does, decided by SQLite's own planner.

mod cache;
mod classify;
mod explain;

pub(crate) use cache::ClassCache;
pub(crate) use classify::{Class, Control, ScriptPlan, plan_script};
pub(crate) use explain::classify_with;

/// What a statement does to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// It reads the database.
    Read,
    /// It changes the database.
    Write,
    /// It concerns this connection alone: temporary tables, attached files, session PRAGMAs.
    Local,
}
