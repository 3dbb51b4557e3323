//! The limits on messages, connections and queues.

use std::time::Duration;

use crate::wire::{Command, Repeated, ServerError};

/// The limits of a server or client, so that neither a large statement nor a hostile peer can
/// exhaust the memory. The sender checks a limit before it sends, and the receiver checks it again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest frame in bytes. Default 64 MiB.
    pub frame: usize,
    /// The longest SQL text in bytes. Default 1 MiB.
    pub statement: usize,
    /// The most parameters of one statement. Default 32 766, SQLite's own limit.
    pub parameters: usize,
    /// The largest set of returned rows in bytes. Default 48 MiB.
    pub rows: usize,
    /// The most connections at one time. Default 1 024.
    pub connections: usize,
    /// The most writes waiting for the writer, from all connections. Default 4 096.
    pub queue: usize,
    /// The most reads of other nodes that run at the same time, each on its own connection beside
    /// the writer. Waiting and running reads together are at most [`queue`](Self::queue). 0: reads
    /// are queued with the writes. Default 4.
    pub readers: usize,
    /// The most forwarded writes that share one transaction and its commit (group commit). 1: no
    /// write shares its transaction. Default 128.
    pub group: usize,
    /// How long a peer may take for the handshake. Default 2 s.
    pub handshake: Duration,
    /// How long an open transaction may be idle before it is rolled back. Default 5 s.
    pub session_idle: Duration,
    /// How long a transaction may be open before it is rolled back. Default 30 s.
    pub session_total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 64 << 20,
            statement: 1 << 20,
            parameters: 32_766,
            rows: 48 << 20,
            connections: 1_024,
            queue: 4_096,
            readers: 4,
            group: 128,
            handshake: Duration::from_secs(2),
            session_idle: Duration::from_secs(5),
            session_total: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// The largest set of rows that is both allowed and fits into a frame, in bytes.
    #[must_use]
    pub fn max_rows(&self) -> usize {
        self.rows.min(self.frame.saturating_sub(FRAME_OVERHEAD))
    }

    /// Checks a command against the limits on statement length, parameters and frame size.
    ///
    /// # Errors
    /// The [`ServerError`] that names the limit.
    pub fn check(&self, work: &Command) -> Result<(), ServerError> {
        let too_large =
            |what: &str, actual, limit| ServerError::TooLarge { what: what.into(), actual, limit };
        let parameters = match work {
            Command::Execute(statement) | Command::Query(statement) => statement.params.len(),
            Command::Batch { statements, .. } => {
                statements.iter().filter_map(Repeated::width).max().unwrap_or_default()
            }
            Command::Insert(rows) => rows.params.len(),
            Command::Script(_) | Command::Call(_) => 0,
            Command::Transaction(record) => {
                record.commands().try_for_each(|work| self.check(work))?;
                0
            }
        };
        if parameters > self.parameters {
            return Err(too_large("the number of parameters", parameters, self.parameters));
        }
        // A script is bounded by the frame alone: dumps and migrations are long.
        let longest = match work {
            Command::Script(_) | Command::Transaction(_) | Command::Call(_) => 0,
            Command::Insert(rows) => rows.unrolled_len(rows.times),
            work => work.texts().map(str::len).max().unwrap_or_default(),
        };
        if longest > self.statement {
            return Err(too_large("the statement's length in bytes", longest, self.statement));
        }
        let size = work.size().saturating_add(FRAME_OVERHEAD);
        if size > self.frame {
            return Err(too_large("the request's size in bytes", size, self.frame));
        }
        Ok(())
    }
}

/// The bytes of a frame besides the command: ids, deadline, settings.
const FRAME_OVERHEAD: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Statement, Value};

    fn work(sql: &str, params: Vec<Value>) -> Command {
        Command::Execute(Statement { sql: sql.into(), params, cacheable: true })
    }

    #[test]
    fn s5_each_limit_is_named_in_its_refusal() {
        let limits = Limits { frame: 2_000, statement: 10, parameters: 1, ..Limits::default() };
        let refused = |work| match limits.check(&work) {
            Err(ServerError::TooLarge { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert!(refused(work("SELECT 12345", vec![])).contains("statement"));
        assert!(refused(work("SELECT ?", vec![Value::Null, Value::Null])).contains("parameters"));
        assert!(refused(work("SELECT ?", vec![Value::Blob(vec![0; 2_000])])).contains("request"));
        assert!(refused(Command::Script("x".repeat(2_000))).contains("request"));
        assert_eq!(limits.check(&work("SELECT ?", vec![Value::Integer(1)])), Ok(()));
    }
}
