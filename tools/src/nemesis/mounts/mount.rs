//! The mount of a node of a real LiteFS.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One running node: `<dir>=<url>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where LiteFS is mounted.
    pub(super) dir: PathBuf,
    /// LiteFS's HTTP server.
    pub(super) url: String,
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((dir, url)) if !dir.is_empty() && url.starts_with("http://") => {
                Ok(Self { dir: dir.into(), url: url.trim_end_matches('/').into() })
            }
            _ => Err(format!("{text:?} is not <dir>=http://<LiteFS's address>")),
        }
    }
}

impl Mount {
    pub(super) fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

/// The position in `<db>-pos`.
pub(super) fn position(dir: &Path, database: &str) -> std::io::Result<String> {
    std::fs::read_to_string(dir.join(format!("{database}-pos")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_directory_and_a_url() {
        let mount: Mount = "/mnt/a=http://127.0.0.1:20202/".parse().unwrap();
        assert_eq!(
            (mount.dir.as_path(), mount.url.as_str()),
            (Path::new("/mnt/a"), "http://127.0.0.1:20202")
        );
        assert_eq!(mount.file("x.db"), "/mnt/a/x.db");
        for wrong in ["/mnt/a", "=http://a", "/mnt/a=127.0.0.1:20202"] {
            assert!(wrong.parse::<Mount>().is_err(), "{wrong}");
        }
    }
}
