//! LiteFS's special files: `.primary`, `.lag`, `<db>-pos`.
//!
//! They are opened read-only and never created: LiteFS answers a create with `ENOSYS`, upon which
//! the kernel stops creating files on that mount at all. Whether a file is there is judged by
//! reading it: `open()` goes on succeeding for up to a minute after `.primary` has vanished.

mod kind;
mod parse;
mod position_file;
mod presence;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use kind::is_fuse;
pub use parse::{MalformedFile, parse_lag, parse_position, parse_primary};
pub(crate) use position_file::PositionFile;
pub use presence::Presence;
pub(crate) use presence::{Probe, has_been_seen, remember};

use crate::NodeName;

/// No special file is longer; what is longer is not LiteFS's.
const MAX_FILE: usize = 1024;

/// Why a special file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount directory is gone.
    #[error("the mount directory {0} does not exist")]
    Gone(PathBuf),
    /// The directory is there but no LiteFS serves it any more (`ENOTCONN`).
    #[error("LiteFS no longer serves the mount {0}")]
    NotConnected(PathBuf),
    /// The file is longer than LiteFS writes it.
    #[error("{0} is longer than {MAX_FILE} bytes")]
    TooLarge(PathBuf),
    /// The file does not say what LiteFS would say.
    #[error("{file} cannot be understood: {reason}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: MalformedFile,
    },
    /// Any other failure.
    #[error("{file} cannot be read")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// Why the position of a database is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// The database file does not exist yet. Normal before the first write.
    #[error("the database {0} does not exist yet")]
    NoDatabase(PathBuf),
    /// The database is there but LiteFS keeps no position for it: it is a plain file.
    #[error("{0} does not exist: the database is not on a LiteFS mount")]
    Absent(PathBuf),
    /// The file is there but cannot be read.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// One database on one mount.
#[derive(Debug, Clone)]
pub struct Mount {
    dir: PathBuf,
    database: PathBuf,
}

impl Mount {
    /// The mount that holds `database`. Symbolic links are followed as far as they exist; nothing
    /// is opened.
    #[must_use]
    pub fn new(database: &Path) -> Self {
        let database = canonical(database);
        let dir = database.parent().unwrap_or(Path::new("/")).to_owned();
        Self { dir, database }
    }

    /// The mount directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The node named in `.primary`; `None` if there is no such file. Blocks: 20 to 180 us on FUSE.
    ///
    /// `None` does not mean that this node is the primary: the file is also absent while no primary
    /// is known.
    ///
    /// # Errors
    ///
    /// [`MountError`] if the mount is gone, or the file is there and cannot be read.
    pub fn read_primary(&self) -> Result<Option<NodeName>, MountError> {
        self.read_special(&self.dir.join(".primary"), parse_primary)
    }

    /// The age of the last sign of life from the primary, from `.lag`; `None` if there is no such
    /// file, as without LiteFS. Zero on the primary itself; 2147483647 ms while the first
    /// replication is not done. Blocks: 70 to 110 us on FUSE.
    ///
    /// # Errors
    ///
    /// [`MountError`] if the mount is gone, or the file is there and cannot be read.
    pub fn read_lag(&self) -> Result<Option<Duration>, MountError> {
        self.read_special(&self.dir.join(".lag"), parse_lag)
    }

    fn position_path(&self) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push("-pos");
        path.into()
    }

    fn read_special<T>(
        &self,
        file: &Path,
        parse: fn(&[u8]) -> Result<T, MalformedFile>,
    ) -> Result<Option<T>, MountError> {
        match read_bounded(file) {
            Ok(bytes) if bytes.len() > MAX_FILE => Err(MountError::TooLarge(file.to_owned())),
            Ok(bytes) => match parse(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(reason) => Err(MountError::Malformed { file: file.to_owned(), reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir.is_dir() => Ok(None),
            Err(error) => Err(self.explain(file, error)),
        }
    }

    /// Says what an error means for the mount as a whole.
    fn explain(&self, file: &Path, source: io::Error) -> MountError {
        use io::ErrorKind::{ConnectionAborted, NotConnected, NotFound};
        match source.kind() {
            // ECONNABORTED is what the one request in flight gets at the moment LiteFS dies.
            NotConnected | ConnectionAborted => MountError::NotConnected(self.dir.clone()),
            NotFound => match self.dir.metadata() {
                Err(error) if error.kind() == NotConnected => {
                    MountError::NotConnected(self.dir.clone())
                }
                _ => MountError::Gone(self.dir.clone()),
            },
            _ => MountError::Io { file: file.to_owned(), source },
        }
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `path` without symbolic links, as far as it exists. The rest is kept: a mount that is gone, or
/// whose LiteFS is dead so that `stat` fails, must still be recognised by its name.
fn canonical(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(path), _, _) => path,
        (Err(_), Some(parent), Some(name)) => canonical(parent).join(name),
        (Err(_), _, _) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
