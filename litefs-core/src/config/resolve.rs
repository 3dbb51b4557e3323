//! From a path to the file that SQLite opens for it.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How many symbolic links are followed, as SQLite does (`SQLITE_MAX_SYMLINK`).
const MAX_LINKS: usize = 200;

/// The absolute path without `.`, `..` and symbolic links (SQLite: os_unix.c, `unixFullPathname`).
/// SQLite puts `-wal` and `-shm` beside the file that a link leads to. What does not exist, or
/// cannot be read, is taken as it is.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let mut ahead = reversed(&std::path::absolute(path)?);
    let mut links = 0;
    while let Some(step) = ahead.pop() {
        match step.to_str() {
            Some(".") => {}
            Some("..") => {
                resolved.pop();
            }
            _ => resolved.push(step),
        }
        if let Ok(target) = std::fs::read_link(&resolved) {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many symbolic links"));
            }
            resolved.pop();
            ahead.append(&mut reversed(&target));
        }
    }
    Ok(resolved)
}

/// The steps of a path, the first one last.
fn reversed(path: &Path) -> Vec<OsString> {
    path.components().rev().map(Component::as_os_str).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_dots_and_what_does_not_exist_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("mount")).unwrap();
        symlink(root.join("mount"), root.join("link")).unwrap();
        symlink("link/app.db", root.join("relative.db")).unwrap();
        symlink(root.join("relative.db"), root.join("mount/absolute.db")).unwrap();
        let file = root.join("mount/app.db");
        for existing in [false, true] {
            for path in [
                "mount/app.db",
                "link/app.db",
                "./mount/../link/.//app.db",
                "missing/../mount/app.db",
                "link/../mount/app.db",
                "relative.db",
                "link/absolute.db",
            ] {
                assert_eq!(resolve(&root.join(path)).unwrap(), file, "{path}, {existing}");
            }
            std::fs::write(&file, "").unwrap();
        }
        assert_eq!(resolve(Path::new("/../..")).unwrap(), Path::new("/"));
    }

    #[test]
    fn links_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(resolve(&dir.path().join("a")).is_err());
    }
}
