//! Power over the nodes: what neither the application nor LiteFS's API offers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Problem;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start the node; nothing happens if it runs.
    Start,
    /// Stop it in good order, and wait until it has ended.
    Stop,
    /// End it at once, LiteFS and the application, as if its machine were gone.
    Kill,
    /// Ask LiteFS to make it the primary. Does not wait until it is.
    Promote,
    /// Run the application's migrations on it, in a process of their own. Answers with the versions, as JSON.
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

/// Who can do it.
pub trait Control: Send + Sync + 'static {
    /// Does it, and tells what was answered. Blocks until it is done.
    ///
    /// # Errors
    /// If it could not be done.
    fn tell(&self, verb: Verb, node: &str) -> Result<String, Problem>;
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
    fn tell(&self, verb: Verb, node: &str) -> Result<String, Problem> {
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
    fn the_command_is_told_the_verb_and_the_node_and_answers() {
        let echo = Script::new("/bin/echo".into());
        assert_eq!(echo.tell(Verb::Migrate, "node-a").unwrap(), "migrate node-a\n");
    }

    #[test]
    fn a_failure_names_what_was_asked() {
        let error = Script::new("/bin/false".into()).tell(Verb::Kill, "node-b").unwrap_err().to_string();
        assert!(error.contains("kill node-b") && error.contains('1'), "{error}");
    }
}
