//! From the URL of a database to its file and how SQLite opens it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::resolve::resolve;

const NO_FILE: &str = "the path of a database file, or a `sqlite://` or `file:` URL of one";
const IN_MEMORY: &str = "a database with a file, not one in memory or a temporary one";
const AUTHORITY: &str = "a `file:` URL whose authority is empty or `localhost`";
const MODE: &str = "`mode` to be ro, rw, rwc or memory";
const CACHE: &str = "`cache` to be private or shared";

/// The VFSs of SQLite whose locks LiteFS does not see.
const VFS_WITHOUT_LOCKS: [&[u8]; 3] = [b"unix-none", b"unix-dotfile", b"unix-excl"];
/// SQLite's default VFS.
const DEFAULT_VFS: &[u8] = b"unix";

/// The file that a database URL leads to, and the parameters with which SQLite opens it.
///
/// Takes every URL that Diesel takes for SQLite, and reads it as Diesel and
/// [SQLite](https://www.sqlite.org/uri.html) do: a path, a `file:` URI, or `sqlite://`, which
/// stands for `file:`.
///
/// ```
/// # use litefs_core::DatabaseUrl;
/// let url = DatabaseUrl::parse("sqlite:///litefs/my%20app.db?mode=ro")?;
/// assert_eq!(url.path().to_str(), Some("/litefs/my app.db"));
/// assert!(url.is_read_only());
/// # Ok::<(), litefs_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    path: PathBuf,
    parameters: Parameters,
}

/// Names and values without escapes, in the order of the URL. They need not be UTF-8.
type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

impl DatabaseUrl {
    /// Takes a URL apart. The path becomes the one of the file that SQLite opens: absolute, without
    /// `.`, `..` and symbolic links. The file need not exist. Reads the file system.
    ///
    /// # Errors
    /// [`ConfigError`] where there is no file: the database is in memory or temporary, or SQLite
    /// refuses the URL.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        let refuse = |allowed| ConfigError::new("database", None, url, allowed);
        if url.contains('\0') {
            return Err(refuse(NO_FILE));
        }
        // As Diesel does it.
        let rest = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("file:"));
        let (path, parameters) = match rest {
            Some(rest) => uri(rest).map_err(refuse)?,
            None => (url.as_bytes().to_vec(), Vec::new()),
        };
        if is_in_memory(&path, &parameters) {
            return Err(refuse(IN_MEMORY));
        }
        check_values(&parameters).map_err(refuse)?;
        let path = PathBuf::from(OsString::from_vec(path));
        if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
            return Err(refuse(NO_FILE));
        }
        let path = resolve(&path).map_err(|_| refuse(NO_FILE))?;
        path.file_name().ok_or_else(|| refuse(NO_FILE))?;
        Ok(Self { path, parameters })
    }

    /// The absolute path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether SQLite opens the file for reading only (`mode=ro`).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        last(&self.parameters, b"mode") == Some(b"ro")
    }

    /// The same, opened for writing: `mode=ro` becomes `mode=rw`.
    #[must_use]
    pub fn writable(mut self) -> Self {
        for (name, value) in &mut self.parameters {
            if name == b"mode" && value == b"ro" {
                *value = b"rw".to_vec();
            }
        }
        self
    }

    /// Refuses parameters that cannot hold for a file that LiteFS replicates.
    ///
    /// # Errors
    /// [`ConfigError`] names the parameter and says why.
    pub fn check_replicable(&self) -> Result<(), ConfigError> {
        match self.parameters.iter().find_map(|(name, value)| unfit(name, value)) {
            Some(allowed) => Err(self.refuse(allowed)),
            None => Ok(()),
        }
    }

    /// The URL of a connection to the database that `handle` is the URL of. What this URL leaves
    /// open, except `mode`, is as for the handle.
    ///
    /// # Errors
    /// Those of [`check_replicable`](Self::check_replicable), and another `vfs` than the handle's.
    pub fn within(mut self, handle: &Self) -> Result<Self, ConfigError> {
        self.check_replicable()?;
        if last(&self.parameters, b"vfs").is_some_and(|vfs| vfs != handle.vfs()) {
            return Err(
                self.refuse("the `vfs` of the LiteFs handle that this process has for the file")
            );
        }
        let is_open = |name: &[u8]| name != b"mode" && last(&self.parameters, name).is_none();
        let inherited: Vec<_> =
            handle.parameters.iter().filter(|(name, _)| is_open(name)).cloned().collect();
        self.parameters.extend(inherited);
        Ok(self)
    }

    fn vfs(&self) -> &[u8] {
        last(&self.parameters, b"vfs").unwrap_or(DEFAULT_VFS)
    }

    fn refuse(&self, allowed: &'static str) -> ConfigError {
        ConfigError::new("database", None, self.to_string(), allowed)
    }
}

/// What to hand to SQLite or Diesel: a path, or a `file:` URI where there are parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.to_str() {
            Some(path) if self.parameters.is_empty() => return f.write_str(path),
            _ => write!(f, "file:{}", Escaped(self.path.as_os_str().as_bytes()))?,
        }
        for (at, (name, value)) in self.parameters.iter().enumerate() {
            let separator = if at == 0 { '?' } else { '&' };
            write!(f, "{separator}{}={}", Escaped(name), Escaped(value))?;
        }
        Ok(())
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                write!(f, "{}", char::from(*byte))
            }
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

/// The path and the parameters of a URI behind its scheme (SQLite: main.c, `sqlite3ParseUri`).
fn uri(rest: &str) -> Result<(Vec<u8>, Parameters), &'static str> {
    let local = match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
            if !matches!(authority, "" | "localhost") {
                return Err(AUTHORITY);
            }
            &rest[authority.len()..]
        }
        None => rest,
    };
    let local = local.split('#').next().unwrap_or_default();
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let parameters = pairs.map(|(name, value)| (unescape(name), unescape(value)));
    Ok((unescape(path), parameters.filter(|(name, _)| !name.is_empty()).collect()))
}

/// Undoes `%HH` as SQLite does: what is no escape stays, and `%00` ends the text.
fn unescape(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        match escaped {
            Some((0, _)) => break,
            Some((byte, after)) => (out.push(byte), rest = after).1,
            None => (out.push(*first), rest = after).1,
        }
    }
    out
}

/// The value that SQLite goes by for `mode`, `cache` and `vfs`.
fn last<'a>(parameters: &'a Parameters, name: &[u8]) -> Option<&'a [u8]> {
    parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
}

fn is_in_memory(path: &[u8], parameters: &Parameters) -> bool {
    path.is_empty()
        || path == b":memory:"
        || last(parameters, b"mode") == Some(b"memory")
        || last(parameters, b"vfs") == Some(b"memdb")
}

/// SQLite opens nothing with other values.
fn check_values(parameters: &Parameters) -> Result<(), &'static str> {
    let only = |name: &[u8], allowed: &[&[u8]]| {
        parameters.iter().all(|(known, value)| known != name || allowed.contains(&value.as_slice()))
    };
    if !only(b"mode", &[b"ro", b"rw", b"rwc", b"memory"]) {
        return Err(MODE);
    }
    if only(b"cache", &[b"private", b"shared"]) { Ok(()) } else { Err(CACHE) }
}

/// What is expected instead of a parameter that cannot hold on LiteFS.
fn unfit(name: &[u8], value: &[u8]) -> Option<&'static str> {
    let off =
        ["0", "no", "off", "false"].iter().any(|off| value.eq_ignore_ascii_case(off.as_bytes()));
    match name {
        b"immutable" if !off => {
            Some("a URL without `immutable`: LiteFS changes the file while it is open")
        }
        b"nolock" if !off => Some("a URL without `nolock`: LiteFS needs SQLite's locks"),
        b"cache" if value == b"shared" => Some(
            "a URL without `cache=shared`: connections that share a cache block each other's reads",
        ),
        b"vfs" if VFS_WITHOUT_LOCKS.contains(&value) => {
            Some("a `vfs` whose locks LiteFS sees, such as unix")
        }
        _ => None,
    }
}

/// For names that must be text: LiteFS reports them in JSON.
pub(super) fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

#[cfg(test)]
mod tests;
