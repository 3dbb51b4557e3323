//! What an error of SQLite means on a node whose mount can die and whose role can change.
//!
//! Diesel reports SQLite's message but not its code, and SQLite has one code for a broken disk, a
//! dead mount and a write that LiteFS refuses. So the message is only a symptom; the state of the
//! node decides what it means.

/// What SQLite's message may mean, before the node is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symptom {
    /// The statement itself.
    Statement,
    /// A lock that another connection holds: `SQLITE_BUSY`. A dead mount refuses locks as well.
    Locked,
    /// A lock that could not be taken within SQLite's ten seconds: `SQLITE_PROTOCOL`.
    LockRefused,
    /// A full disk: `SQLITE_FULL`.
    Full,
    /// A write to a read-only database: `SQLITE_READONLY`, also the effect of `PRAGMA query_only`.
    ReadOnly,
    /// A file that cannot be opened, read or written: `SQLITE_IOERR`, `SQLITE_CANTOPEN` and the
    /// kernel's errors for a dead mount. LiteFS rejects a write on a node that is not the primary
    /// with `SQLITE_IOERR_WRITE`.
    Storage,
    /// A file with invalid contents: `SQLITE_NOTADB`, `SQLITE_CORRUPT`.
    Malformed,
}

/// The state of the node that ran the statement, after the statement failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState {
    /// LiteFS serves its mount.
    pub mount_served: bool,
    /// Its role has not changed since the statement began. True for statements that need no role.
    pub role_held: bool,
}

/// What an error of SQLite means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnosis {
    /// It is the statement's own error.
    Statement,
    /// Another connection holds a lock. Nothing is applied; a retry may succeed.
    Busy,
    /// The node's disk is full.
    DiskFull,
    /// The node cannot use its file, and neither its mount nor its role is the reason.
    Io,
    /// The node's role has changed since the statement began, and LiteFS has rejected the write.
    /// Nothing is applied.
    Demoted,
    /// LiteFS does not serve the node's mount any more. Nothing is applied.
    MountLost,
}

/// SQLite's messages (`sqlite3_errstr`), and the kernel's for `ENOTCONN`, `ECONNABORTED` and
/// `ESTALE`.
const MESSAGES: [(&str, Symptom); 11] = [
    ("database is locked", Symptom::Locked),
    ("locking protocol", Symptom::LockRefused),
    ("database or disk is full", Symptom::Full),
    ("attempt to write a readonly database", Symptom::ReadOnly),
    ("disk I/O error", Symptom::Storage),
    ("unable to open database file", Symptom::Storage),
    ("Transport endpoint is not connected", Symptom::Storage),
    ("Software caused connection abort", Symptom::Storage),
    ("Stale file handle", Symptom::Storage),
    ("file is not a database", Symptom::Malformed),
    ("database disk image is malformed", Symptom::Malformed),
];

impl Symptom {
    /// Judges SQLite's message.
    #[must_use]
    pub fn of(message: &str) -> Self {
        let known = MESSAGES.iter().find(|(known, _)| message.starts_with(known));
        known.map_or(Self::Statement, |(_, symptom)| *symptom)
    }

    /// Whether the mount and the role must be checked before this is [diagnosed](Self::diagnose). A
    /// held lock is too common for a check, so it is diagnosed by the known state.
    #[must_use]
    pub fn is_suspicious(self) -> bool {
        !matches!(self, Self::Statement | Self::Locked)
    }

    /// Decides what the error means on a node in this state.
    #[must_use]
    pub fn diagnose(self, node: NodeState) -> Diagnosis {
        match self {
            Self::Statement => Diagnosis::Statement,
            _ if !node.mount_served => Diagnosis::MountLost,
            _ if !node.role_held => Diagnosis::Demoted,
            Self::Locked | Self::LockRefused => Diagnosis::Busy,
            Self::Full => Diagnosis::DiskFull,
            Self::Storage => Diagnosis::Io,
            // The application's own `query_only`, a database that is corrupt.
            Self::ReadOnly | Self::Malformed => Diagnosis::Statement,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_means_what_the_node_says() {
        use Diagnosis::{Busy, Demoted, DiskFull, Io, MountLost, Statement};
        // What it means on a node as it was, on one that was demoted, and on one whose mount is
        // gone.
        let table = [
            ("UNIQUE constraint failed: t.x", [Statement, Statement, Statement]),
            ("no such table: disk I/O error", [Statement, Statement, Statement]),
            ("database is locked", [Busy, Demoted, MountLost]),
            ("database table is locked: t", [Statement, Statement, Statement]),
            ("locking protocol", [Busy, Demoted, MountLost]),
            ("database or disk is full", [DiskFull, Demoted, MountLost]),
            ("disk I/O error", [Io, Demoted, MountLost]),
            ("unable to open database file", [Io, Demoted, MountLost]),
            ("Transport endpoint is not connected (os error 107)", [Io, Demoted, MountLost]),
            ("Stale file handle (os error 116)", [Io, Demoted, MountLost]),
            ("attempt to write a readonly database", [Statement, Demoted, MountLost]),
            ("file is not a database", [Statement, Demoted, MountLost]),
            ("database disk image is malformed", [Statement, Demoted, MountLost]),
        ];
        for (message, expected) in table {
            let states = [(true, true), (true, false), (false, false)];
            let diagnosed = states.map(|(mount_served, role_held)| {
                Symptom::of(message).diagnose(NodeState { mount_served, role_held })
            });
            assert_eq!(diagnosed, expected, "{message}");
        }
    }

    #[test]
    fn only_what_the_role_may_explain_asks_litefs() {
        assert!(!Symptom::of("syntax error").is_suspicious());
        assert!(!Symptom::of("database is locked").is_suspicious());
        assert!(MESSAGES.iter().filter(|(_, symptom)| symptom.is_suspicious()).count() > 8);
    }
}
