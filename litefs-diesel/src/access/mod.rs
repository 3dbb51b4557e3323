//! The class of a statement: what it does to the database, decided by SQLite's own planner.
//!
//! `explain` reads SQLite's program for a statement, `pragma` is the table of PRAGMAs, and
//! `classify` derives the class from both. `class` combines the classes of several statements,
//! `script` and `control` say what that means for a script. `cache` keeps the classes.

mod cache;
mod class;
mod classify;
mod control;
mod explain;
mod footprint;
mod pragma;
mod script;

pub(crate) use cache::ClassCache;
pub use class::Access;
pub(crate) use class::Class;
pub(crate) use classify::classify_with;
pub(crate) use control::Control;
pub(crate) use footprint::Footprint;
pub(crate) use script::{ScriptPlan, plan_script};
