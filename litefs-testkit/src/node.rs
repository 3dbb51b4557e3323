//! One node of a cluster, in this process.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::Identity;
use crate::control::Control;
use crate::database::is_database_name;
use crate::error::Error;
use crate::host::Host;
use crate::launch::random_id;
use crate::vfs::VFS_NAME;

/// A node: a directory that looks like a LiteFS mount, an HTTP server that answers like LiteFS, and
/// replication.
///
/// Its databases are real SQLite files, to be opened through [`Node::database_url`] in the process
/// that hosts the node only, because locks and shared memory live there. A SQLite that does not use
/// the VFS fails with "database is locked" (on Linux; on other systems nothing prevents it from
/// damaging the file).
///
/// A node keeps a copy of each database in memory.
///
/// The methods that set its role and inject faults are on [`Control`], to which it dereferences.
/// Dropping it kills it; its files stay.
#[derive(Debug)]
pub struct Node {
    control: Control,
    host: Arc<Host>,
}

impl Deref for Node {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

/// Options of a [`Node`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder {
    name: String,
    dir: Option<PathBuf>,
    databases: Vec<String>,
    http_addr: String,
    replication_addr: String,
    candidate: bool,
    cluster_id: String,
}

impl NodeBuilder {
    /// The directory that stands for the mount; created if it does not exist. Required. The files
    /// that LiteFS keeps in its data directory go to a directory next to it, whose name ends with
    /// `.litefs`.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// A database that the node creates, empty and in WAL mode, when it becomes primary and does
    /// not have it. May be called several times. Default: none; applications can create databases
    /// too.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.databases.push(name.into());
        self
    }

    /// Where the HTTP server listens. Default `127.0.0.1:0`, a free port.
    pub fn http_addr(mut self, addr: impl Into<String>) -> Self {
        self.http_addr = addr.into();
        self
    }

    /// Where the node serves replicas. Default `127.0.0.1:0`, a free port.
    pub fn replication_addr(mut self, addr: impl Into<String>) -> Self {
        self.replication_addr = addr.into();
        self
    }

    /// Whether `POST /promote` may make it primary. Default true. [`Control::become_primary`] is
    /// not affected.
    pub fn candidate(mut self, candidate: bool) -> Self {
        self.candidate = candidate;
        self
    }

    /// `Litefs-Cluster-Id`. Default: `LFSC` and 16 random digits.
    pub fn cluster_id(mut self, id: impl Into<String>) -> Self {
        self.cluster_id = id.into();
        self
    }

    /// Starts the node. It has no role until a role is set.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a missing directory or an invalid name; [`Error::Io`] if a port is in
    /// use or a file cannot be opened, for example because another process hosts a node on the same
    /// directory.
    pub fn start(self) -> Result<Node, Error> {
        let (http_addr, replication_addr) = (self.http_addr.clone(), self.replication_addr.clone());
        let host = Arc::new(Host::start(self.identity()?, &http_addr, &replication_addr)?);
        Ok(Node { control: Control::local(Arc::clone(&host)), host })
    }

    fn identity(self) -> Result<Identity, Error> {
        let dir = self.dir.ok_or_else(|| Error::Invalid("dir: a node needs a directory".into()))?;
        if self.name.is_empty() || self.name.contains(['\n', '/']) {
            return Err(Error::Invalid(format!("name: {:?}", self.name)));
        }
        if let Some(name) = self.databases.iter().find(|name| !is_database_name(name)) {
            return Err(Error::Invalid(format!("database: {name:?}")));
        }
        std::fs::create_dir_all(&dir).map_err(Error::io("create the mount directory"))?;
        let dir = dir.canonicalize().map_err(Error::io("resolve the mount directory"))?;
        let file_name = dir.file_name().unwrap_or_default().to_string_lossy();
        Ok(Identity {
            data_dir: dir.with_file_name(format!("{file_name}.litefs")),
            name: self.name,
            id: String::new(),
            cluster_id: self.cluster_id,
            candidate: self.candidate,
            dir,
            databases: self.databases,
        })
    }
}

impl Node {
    /// Options of a node with this LiteFS host name, which may have a port (`127.0.0.1:4001`).
    pub fn builder(name: impl Into<String>) -> NodeBuilder {
        NodeBuilder {
            name: name.into(),
            dir: None,
            databases: Vec::new(),
            http_addr: "127.0.0.1:0".into(),
            replication_addr: "127.0.0.1:0".into(),
            candidate: true,
            cluster_id: format!("LFSC{}", random_id()),
        }
    }

    /// The mount: an absolute path without symbolic links.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.host.dir()
    }

    /// Path of a database.
    #[must_use]
    pub fn database_path(&self, database: &str) -> PathBuf {
        self.dir().join(database)
    }

    /// The URI under which SQLite opens a database of this node through the VFS:
    /// `file:/mount/app.db?vfs=litefs-testkit` (<https://www.sqlite.org/uri.html>).
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        database_url(&self.database_path(database))
    }

    /// Kills the node abruptly, as `kill -9` of LiteFS: every socket is closed, the special files
    /// are gone and all I/O through the VFS fails, also for open connections. On FUSE the files
    /// would fail with ENOTCONN; here the special files do not exist. No effect on a dead node.
    pub fn kill(&self) {
        self.host.kill();
    }

    /// Starts a killed node again with its files and ports, without a role. Earlier connections
    /// stay dead. Commits that LiteFS had not captured are truncated from the WAL.
    ///
    /// # Errors
    /// [`Error::Running`] if it is alive; [`Error::Io`] if a file or port is not available;
    /// [`Error::Corrupt`] if LiteFS would refuse.
    pub fn restart(&self) -> Result<(), Error> {
        self.host.restart()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.host.retire();
    }
}

/// The URI under which SQLite opens the database at `path` through the VFS, for callers that have
/// only the path of a node. The path must be absolute.
#[must_use]
pub fn database_url(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'%' | b'?' | b'#' | 0..=b' ' | 127.. => uri.push_str(&format!("%{byte:02X}")),
            plain => uri.push(char::from(*plain)),
        }
    }
    format!("{uri}?vfs={VFS_NAME}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_escapes_reserved_characters() {
        assert_eq!(
            database_url(Path::new("/tmp/a b/127.0.0.1:4001/x?#%.db")),
            "file:/tmp/a%20b/127.0.0.1:4001/x%3F%23%25.db?vfs=litefs-testkit"
        );
    }

    #[test]
    fn reserved_names_are_refused() {
        for name in ["", "app.db-wal", "app.db-pos", "sub/app.db", ".primary"] {
            let dir = tempfile::tempdir().expect("directory");
            let started = Node::builder("a").dir(dir.path().join("mount")).database(name).start();
            assert!(matches!(started, Err(Error::Invalid(_))), "{name:?}");
        }
        assert!(matches!(Node::builder("a").start(), Err(Error::Invalid(_))));
    }
}
