//! The special files of a LiteFS mount: `.primary`, `.lag` and `<db>-pos` (LiteFS's
//! `fuse/primary_node.go`, `lag_node.go`, `pos_node.go`).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::position::Position;

/// The marker in the data directory of a node that LiteFS would refuse to start again.
pub(crate) const CORRUPT_MARKER: &str = "corrupt";

/// `.lag` of a replica that has never had a message from its primary, in milliseconds.
pub(crate) const NEVER_SYNCED_MS: u64 = i32::MAX as u64;

/// Text of `.lag`: a sign, at least nine digits of milliseconds and a newline.
pub(crate) fn lag_text(ms: u64) -> String {
    format!("+{:09}\n", ms.min(NEVER_SYNCED_MS))
}

/// Writes the special files of one mount.
#[derive(Debug)]
pub(crate) struct SpecialFiles {
    mount: PathBuf,
    /// Where files are written before they are renamed into the mount.
    scratch: PathBuf,
}

impl SpecialFiles {
    pub(crate) fn new(mount: &Path, scratch: &Path) -> Self {
        Self { mount: mount.to_owned(), scratch: scratch.to_owned() }
    }

    /// Writes `hostname` to `.primary`, or removes the file.
    pub(crate) fn set_primary(&self, hostname: Option<&str>) -> io::Result<()> {
        let path = self.mount.join(".primary");
        match hostname {
            Some(name) => self.appear(&path, &format!("{name}\n"), 0o444).map(drop),
            None => remove(&path),
        }
    }

    /// Writes `.lag`.
    pub(crate) fn set_lag(&self, lag: Option<Duration>) -> io::Result<()> {
        let text = lag_text(lag.map_or(NEVER_SYNCED_MS, |lag| lag.as_millis() as u64));
        let path = self.mount.join(".lag");
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => overwrite(&file, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.appear(&path, &text, 0o644).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Creates `<db>-pos`; the file is then written in place by [`write_position`].
    pub(crate) fn create_position(&self, database: &str, position: Position) -> io::Result<File> {
        self.appear(&self.mount.join(format!("{database}-pos")), &format!("{position}\n"), 0o666)
    }

    /// Removes all special files, as when the mount has died. Open descriptors read nothing
    /// afterwards; on a dead mount they fail.
    pub(crate) fn remove_all<'a>(&self, databases: impl Iterator<Item = &'a str>) {
        let names = databases.map(|name| format!("{name}-pos"));
        for name in names.chain([".primary".to_owned(), ".lag".to_owned()]) {
            let path = self.mount.join(name);
            let _ = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
            let _ = remove(&path);
        }
    }

    /// Replaces the file atomically: a reader sees either no file or the whole text.
    fn appear(&self, path: &Path, text: &str, mode: u32) -> io::Result<File> {
        let made = self.scratch.join(path.file_name().unwrap_or_default());
        let _ = remove(&made);
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(&made)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(&made, path)?;
        Ok(file)
    }
}

/// Overwrites `<db>-pos` in one write, so that open descriptors see the whole text at once.
pub(crate) fn write_position(file: &File, position: Position) -> io::Result<()> {
    file.write_all_at(format!("{position}\n").as_bytes(), 0)
}

fn overwrite(file: &File, text: &str) -> io::Result<()> {
    // Only the step from "never" to a number shortens the text. A reader in between sees a second
    // newline.
    file.write_all_at(text.as_bytes(), 0)?;
    if file.metadata()?.len() != text.len() as u64 {
        file.set_len(text.len() as u64)
    } else {
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_a_sign_nine_digits_and_a_newline() {
        assert_eq!(lag_text(0), "+000000000\n");
        assert_eq!(lag_text(350), "+000000350\n");
        assert_eq!(lag_text(NEVER_SYNCED_MS), "+2147483647\n");
    }

    #[test]
    fn a_kept_descriptor_sees_every_later_position() {
        let dirs = (tempfile::tempdir().expect("mount"), tempfile::tempdir().expect("scratch"));
        let files = SpecialFiles::new(dirs.0.path(), dirs.1.path());
        let writer = files.create_position("app.db", Position::default()).expect("create");
        let reader = File::open(dirs.0.path().join("app.db-pos")).expect("open");
        write_position(&writer, Position { txid: 6, checksum: 0xc8d7_f2c4_3a9c_38cb })
            .expect("write");
        let mut text = [0; 34];
        assert_eq!(reader.read_at(&mut text, 0).expect("read"), 34);
        assert_eq!(&text, b"0000000000000006/c8d7f2c43a9c38cb\n");
    }

    #[test]
    fn lag_changes_from_never_to_a_number() {
        let dirs = (tempfile::tempdir().expect("mount"), tempfile::tempdir().expect("scratch"));
        let files = SpecialFiles::new(dirs.0.path(), dirs.1.path());
        files.set_lag(None).expect("never");
        files.set_lag(Some(Duration::from_millis(7))).expect("number");
        assert_eq!(fs::read_to_string(dirs.0.path().join(".lag")).expect("read"), "+000000007\n");
    }
}
