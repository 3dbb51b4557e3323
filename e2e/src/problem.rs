//! The error type of this crate.

/// An error that ends a scenario, or the program, to be printed.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
