//! The error of everything here.

/// What ends a scenario, or the program, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
