//! Control of the nodes' processes, which neither the application nor LiteFS's API offers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::problem::Problem;

/// An action on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start the node, unless it is running.
    Start,
    /// Stop it gracefully, and wait until it has ended.
    Stop,
    /// Kill LiteFS and the application with SIGKILL.
    Kill,
    /// Ask LiteFS to make it the primary, without waiting for the change.
    Promote,
    /// Run the application's migrations on it, in a separate process. Prints the versions as JSON.
    Migrate,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Promote => "promote",
            Self::Migrate => "migrate",
        })
    }
}

/// Runs actions on nodes.
pub trait Control: Send + Sync + 'static {
    /// Runs the action and returns what it printed. Blocks until it has ended.
    ///
    /// If it cannot be run or fails.
    fn run(&self, verb: Verb, node: &str) -> Result<String, Problem>;
}

/// A command that takes a verb and a node's name.
#[derive(Debug)]
pub(crate) struct Script(PathBuf);

impl Script {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Control for Script {
    fn run(&self, verb: Verb, node: &str) -> Result<String, Problem> {
        let output = Command::new(absolute(&self.0)?)
            .args([&verb.to_string(), node])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.0.display()))?;
        if !output.status.success() {
            return Err(format!("{verb} {node}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// A path without a slash would be looked up in PATH.
fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_gets_verb_and_node_and_its_output_is_returned() {
        let echo = Script::new("/bin/echo".into());
        assert_eq!(echo.run(Verb::Migrate, "node-a").unwrap(), "migrate node-a\n");
    }

    #[test]
    fn a_failure_names_the_action() {
        let error =
            Script::new("/bin/false".into()).run(Verb::Kill, "node-b").unwrap_err().to_string();
        assert!(error.contains("kill node-b") && error.contains('1'), "{error}");
    }
}
