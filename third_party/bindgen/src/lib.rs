//! A stand-in for the real `bindgen`, which needs libclang: it answers the two requests of
//! `sqlite-plugin`'s build script with bindings generated beforehand, and refuses everything else.
//!
//! See the README beside this crate for what the data files are and how to make them anew.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// `SQLITE_SOURCE_ID` of the header that `data/` was generated from (SQLite 3.46.0).
const GENERATED_FROM: &str = "2024-05-23 13:25:27 96c92aba00c8375bc32fafcdf12429c58bd8aabfcadab6683e35bbb9cdebf19e";
const CONSTANTS: &str = include_str!("../data/constants.rs");
const BINDINGS: &str = include_str!("../data/bindings.rs");
/// The pattern with which `sqlite-plugin` splits constants from everything else.
const CONSTANT_PATTERN: &str = "SQLITE_.*";

/// How macro constants without a suffix are typed. The data has signed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacroTypeVariation {
    /// `i32` where the value fits.
    Signed,
    /// `u32` where the value fits; not available here.
    Unsigned,
}

/// Collects what the build script asks for.
#[derive(Debug, Default)]
pub struct Builder {
    header: Option<PathBuf>,
    allowed: Vec<String>,
    blocked: Vec<String>,
    core: bool,
    constants: Option<MacroTypeVariation>,
}

impl Builder {
    /// The C header to bind, relative to the build script's directory.
    #[must_use]
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = Some(PathBuf::from(header.into()));
        self
    }

    /// Binds only items that match `pattern`.
    #[must_use]
    pub fn allowlist_item(mut self, pattern: impl AsRef<str>) -> Self {
        self.allowed.push(pattern.as_ref().to_owned());
        self
    }

    /// Binds everything except items that match `pattern`.
    #[must_use]
    pub fn blocklist_item(mut self, pattern: impl AsRef<str>) -> Self {
        self.blocked.push(pattern.as_ref().to_owned());
        self
    }

    /// Names types through `core` and not `std`.
    #[must_use]
    pub fn use_core(mut self) -> Self {
        self.core = true;
        self
    }

    /// How macro constants are typed.
    #[must_use]
    pub fn default_macro_constant_type(mut self, variation: MacroTypeVariation) -> Self {
        self.constants = Some(variation);
        self
    }

    /// The pre-generated bindings for this request.
    ///
    /// # Errors
    /// When the request is not one of the two that the data answers, when the header cannot be read, or
    /// when it is of another SQLite than the data.
    pub fn generate(self) -> Result<Bindings, BindgenError> {
        let text = self.wanted().ok_or(BindgenError::Unsupported)?;
        check_header(self.header.as_deref().ok_or(BindgenError::Unsupported)?)?;
        Ok(Bindings { text })
    }

    fn wanted(&self) -> Option<&'static str> {
        let supported = self.core && self.constants == Some(MacroTypeVariation::Signed);
        match (supported, self.allowed.as_slice(), self.blocked.as_slice()) {
            (true, [only], []) if only == CONSTANT_PATTERN => Some(CONSTANTS),
            (true, [], [but]) if but == CONSTANT_PATTERN => Some(BINDINGS),
            _ => None,
        }
    }
}

/// Reads the header's `SQLITE_SOURCE_ID`, which names the exact SQLite check-in.
fn check_header(extension_header: &Path) -> Result<(), BindgenError> {
    // The build script names sqlite3ext.h; the version is in the sqlite3.h that it includes.
    let header = extension_header.with_file_name("sqlite3.h");
    let text = std::fs::read_to_string(&header).map_err(|error| BindgenError::Header(header.clone(), error))?;
    let found = text.lines().find_map(|line| line.strip_prefix("#define SQLITE_SOURCE_ID"));
    match found.map(|id| id.trim().trim_matches('"')) {
        Some(GENERATED_FROM) => Ok(()),
        other => Err(BindgenError::OtherVersion(header, other.unwrap_or("no SQLITE_SOURCE_ID").to_owned())),
    }
}

/// Bindings ready to be written.
#[derive(Debug)]
pub struct Bindings {
    text: &'static str,
}

impl Bindings {
    /// Writes the bindings to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, self.text)
    }
}

/// Why there are no bindings.
#[derive(Debug)]
pub enum BindgenError {
    /// The build script asks for something other than `sqlite-plugin` 0.11 does.
    Unsupported,
    /// The header could not be read.
    Header(PathBuf, io::Error),
    /// The header is of another SQLite than the data; the second field is its source id.
    OtherVersion(PathBuf, String),
}

impl fmt::Display for BindgenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str(
                "third_party/bindgen answers only the two requests of sqlite-plugin 0.11; \
                 remove its [patch.crates-io] line to use the real bindgen (needs libclang)",
            ),
            Self::Header(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::OtherVersion(path, found) => write!(
                f,
                "{} is of SQLite {found:?}, but third_party/bindgen/data was generated from {GENERATED_FROM:?}: \
                 generate it anew (see third_party/bindgen/README.md)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BindgenError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(header: &Path) -> Builder {
        Builder::default()
            .header(header.to_str().expect("temporary paths are UTF-8"))
            .use_core()
            .default_macro_constant_type(MacroTypeVariation::Signed)
    }

    fn header_of(source_id: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("bindgen-stand-in-{}-{}", std::process::id(), source_id.len()));
        std::fs::create_dir_all(&dir).expect("temporary directory");
        let text = format!("#define SQLITE_SOURCE_ID      \"{source_id}\"\n");
        std::fs::write(dir.join("sqlite3.h"), text).expect("temporary file");
        dir.join("sqlite3ext.h")
    }

    #[test]
    fn the_two_requests_of_the_plugin_get_constants_and_bindings() {
        let header = header_of(GENERATED_FROM);
        let constants = request(&header).allowlist_item(CONSTANT_PATTERN).generate().expect("constants");
        assert!(constants.text.contains("pub const SQLITE_OK: i32 = 0;"));
        let bindings = request(&header).blocklist_item(CONSTANT_PATTERN).generate().expect("bindings");
        assert!(bindings.text.contains("pub struct sqlite3_io_methods"));
    }

    #[test]
    fn a_header_of_another_sqlite_is_refused_with_both_versions() {
        let error = request(&header_of("2031-01-01 other")).allowlist_item(CONSTANT_PATTERN).generate();
        let text = error.expect_err("another version").to_string();
        assert!(text.contains("2031-01-01 other") && text.contains(GENERATED_FROM), "{text}");
    }

    #[test]
    fn any_other_request_is_refused() {
        let error = request(&header_of(GENERATED_FROM)).allowlist_item("fts5_.*").generate();
        assert!(matches!(error, Err(BindgenError::Unsupported)));
    }
}
