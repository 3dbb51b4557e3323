//! From what the user calls the database to the path of its file.

use std::path::{Path, PathBuf};

const ALLOWED: &str = "the path of a database file or a `file:` URI of one";

/// The absolute path of the file behind a path or a SQLite URI (<https://www.sqlite.org/uri.html>).
pub(super) fn path_of(database: &str) -> Result<PathBuf, &'static str> {
    // Diesel accepts `sqlite://` before a plain path.
    let database = database.strip_prefix("sqlite://").unwrap_or(database);
    let path = match database.strip_prefix("file:") {
        Some(uri) => uri_path(uri)?,
        None => database.to_owned(),
    };
    if path.is_empty() || path.ends_with('/') || path.contains('\0') || path == ":memory:" {
        return Err(ALLOWED);
    }
    let path = std::path::absolute(Path::new(&path)).map_err(|_| ALLOWED)?;
    path.file_name().is_some().then_some(path).ok_or(ALLOWED)
}

fn uri_path(uri: &str) -> Result<String, &'static str> {
    let uri = uri.split('#').next().unwrap_or_default();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    if query.split('&').any(|pair| pair == "mode=memory") {
        return Err("a database with a file, not one in memory");
    }
    let path = match path.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => path,
    };
    if uri.starts_with("//") && !path.starts_with('/') {
        return Err("a `file:` URI whose authority is empty or `localhost`");
    }
    percent_decode(path).ok_or(ALLOWED)
}

/// Undoes `%HH`. `None` if an escape is cut short, is not hexadecimal, or the result is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? << 4 | digit(bytes.next())?).ok()?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_a_path_and_a_uri_lead_to_the_same_file() {
        let wanted = Path::new("/litefs/my app.db");
        for database in [
            "/litefs/my app.db",
            "sqlite:///litefs/my app.db",
            "file:/litefs/my%20app.db",
            "file:///litefs/my%20app.db?mode=rw&cache=private",
            "file://localhost/litefs/my%20app.db#top",
        ] {
            assert_eq!(path_of(database).as_deref(), Ok(wanted), "{database}");
        }
        assert!(path_of("app.db").unwrap().is_absolute());
        assert_eq!(path_of("file:app.db").unwrap(), path_of("app.db").unwrap());
    }

    #[test]
    fn c3_what_has_no_file_is_refused() {
        let refused = [
            "",
            "/",
            "/litefs/",
            "..",
            ":memory:",
            "file::memory:",
            "file:a?mode=memory",
            "file:",
            "file:a%0",
            "file:a%zz",
            "file:a%00b",
            "file:%ff",
            "file://host/a.db",
            "sqlite://",
        ];
        for database in refused {
            assert!(path_of(database).is_err(), "{database:?} was accepted");
        }
    }
}
