//! What kind of file system a directory is on.

use std::path::Path;

/// Whether the table of mounts (`/proc/self/mountinfo`, see proc(5)) says that `dir` is a FUSE
/// mount point.
///
/// On FUSE, inotify reports nothing that LiteFS changes, but every read and write of every local
/// process.
pub(crate) fn is_fuse(mountinfo: &str, dir: &Path) -> bool {
    let Some(dir) = dir.to_str() else { return false };
    let escaped = dir
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012");
    // A later mount over the same directory hides the earlier one.
    let last = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some(&escaped));
    let kind =
        last.and_then(|line| line.split_once(" - ")).and_then(|(_, rest)| rest.split(' ').next());
    kind.is_some_and(|kind| kind == "fuse" || kind.starts_with("fuse."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        22 1 0:21 / / rw,relatime state:1 - ext4 /dev/root rw\n\
        40 22 0:33 / /litefs rw,nosuid state:9 - fuse.litefs litefs rw,user_id=0\n\
        41 22 0:34 / /my\\040mount rw - fuse litefs rw\n\
        42 22 0:35 / /over rw - fuse.litefs litefs rw\n\
        43 42 0:36 / /over rw - tmpfs tmpfs rw\n";

    #[test]
    fn only_a_fuse_mount_point_itself_counts() {
        let fuse = |dir: &str| is_fuse(TABLE, Path::new(dir));
        assert!(fuse("/litefs") && fuse("/my mount"));
        assert!(!fuse("/") && !fuse("/litefs/x") && !fuse("/over") && !fuse("/elsewhere"));
    }
}
