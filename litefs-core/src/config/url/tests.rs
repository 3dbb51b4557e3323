//! Tests of database URLs.

use super::*;

fn path_of(url: &str) -> Result<PathBuf, ConfigError> {
    DatabaseUrl::parse(url).map(|url| url.path)
}

#[test]
fn c1_a_path_and_a_uri_lead_to_the_same_file() {
    let wanted = Path::new("/litefs/my app.db");
    for url in [
        "/litefs/my app.db",
        "sqlite:///litefs/my app.db",
        "sqlite:///litefs/my%20app.db?mode=ro&x=%26",
        "sqlite://///localhost/..//litefs/my%20app.db",
        "file:/litefs/my%20app.db",
        "file:///litefs/my%20app.db?mode=rw&cache=private",
        "file://localhost/litefs/my%20app.db#top",
        "file:/litefs/my%20app.db%00.old?mode=ro",
        "file:/%6citefs/./x/../my%20app.db#?mode=memory",
    ] {
        assert_eq!(path_of(url).as_deref(), Ok(wanted), "{url}");
    }
    assert!(path_of("app.db").unwrap().is_absolute());
    for url in ["file:app.db", "sqlite://app.db", "./app.db", "file:./x/%2e%2e/app.db?a"] {
        assert_eq!(path_of(url), path_of("app.db"), "{url}");
    }
}

#[test]
fn c1_a_path_is_taken_word_for_word_and_a_broken_escape_too() {
    for (url, path) in [
        ("/litefs/a%20b?mode=memory#c", "/litefs/a%20b?mode=memory#c"),
        ("file:/litefs/a%2", "/litefs/a%2"),
        ("file:/litefs/a%zz%4", "/litefs/a%zz%4"),
        ("sqlite:/litefs", "/sqlite:/litefs"),
    ] {
        let found = path_of(url).unwrap();
        assert!(found.ends_with(path.trim_start_matches('/')), "{url} led to {found:?}");
    }
    let bytes = path_of("file:/litefs/%ff").unwrap();
    assert_eq!(bytes.as_os_str().as_bytes(), b"/litefs/\xff");
}

#[test]
fn c3_what_has_no_file_is_refused() {
    for url in [
        "",
        "/",
        "/litefs/",
        "..",
        "a\0b",
        ":memory:",
        "file::memory:",
        "file:%3amemory:",
        "file:a?mode=memory",
        "file:a?mode=ro&%6dode=memory",
        "file:a?vfs=memdb",
        "file:",
        "file:///",
        "file:%00",
        "file:?mode=ro",
        "file://host/a.db",
        "file://a.db",
        "sqlite:////litefs/app.db",
        "sqlite://",
        "file:a?mode=readonly",
        "file:a?cache=none",
    ] {
        assert!(path_of(url).is_err(), "{url:?} was accepted");
    }
}

#[test]
fn a_url_is_written_so_that_it_is_read_the_same() {
    for (url, written) in [
        ("/litefs/my app.db", "/litefs/my app.db"),
        ("sqlite:///litefs/app.db", "/litefs/app.db"),
        ("sqlite:///litefs/my app.db?mode=ro", "file:/litefs/my%20app.db?mode=ro"),
        ("file:/a%3f%23%25?&=b&k%3d=%26%ff&x#y", "file:/a%3F%23%25?k%3D=%26%FF&x="),
        ("file:/%ff", "file:/%FF"),
    ] {
        let parsed = DatabaseUrl::parse(url).unwrap();
        assert_eq!(parsed.to_string(), written);
        assert_eq!(DatabaseUrl::parse(written).as_ref(), Ok(&parsed));
    }
}

#[test]
fn a_connection_has_what_its_url_says_and_else_the_handles() {
    let handle = DatabaseUrl::parse("file:/a.db?vfs=v&mode=ro&psow=0&x=1").unwrap();
    for (url, opened) in [
        ("/a.db", "file:/a.db?vfs=v&psow=0&x=1"),
        ("file:/a.db?mode=rw&x=2", "file:/a.db?mode=rw&x=2&vfs=v&psow=0"),
        ("sqlite:///a.db?vfs=v&psow=1&x", "file:/a.db?vfs=v&psow=1&x="),
    ] {
        let within = DatabaseUrl::parse(url).unwrap().within(&handle).unwrap();
        assert_eq!(within.to_string(), opened, "{url}");
    }
    assert!(DatabaseUrl::parse("file:/a.db?vfs=unix").unwrap().within(&handle).is_err());
    let plain = DatabaseUrl::parse("/a.db").unwrap();
    assert!(DatabaseUrl::parse("file:/a.db?vfs=unix").unwrap().within(&plain).is_ok());
    assert!(handle.is_read_only());
    assert_eq!(handle.writable().to_string(), "file:/a.db?vfs=v&mode=rw&psow=0&x=1");
}

#[test]
fn c3_what_cannot_hold_on_litefs_is_refused_by_its_name() {
    let check = |url: &str| DatabaseUrl::parse(url).unwrap().check_replicable();
    for parameter in [
        "immutable=1",
        "nolock=yes",
        "cache=shared",
        "vfs=unix-none",
        "a=b&immutable=0&immutable=on",
    ] {
        let error = check(&format!("file:/a?{parameter}")).unwrap_err().to_string();
        let name = parameter.rsplit(['&', '=']).nth(1).unwrap();
        assert!(error.contains(&format!("`{name}")), "{error}");
    }
    for parameter in
        ["immutable=0", "nolock=OFF", "cache=private", "vfs=unix", "psow=1", "mode=ro", "Nolock=1"]
    {
        assert_eq!(check(&format!("file:/a?{parameter}")), Ok(()), "{parameter}");
    }
}
