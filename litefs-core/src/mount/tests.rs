//! Tests of LiteFS's special files, on a plain directory.

use std::fs;

use super::*;

fn mount() -> (tempfile::TempDir, Mount) {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(&dir.path().join("app.db"));
    (dir, mount)
}

fn position(text: &str) -> crate::Position {
    text.parse().unwrap()
}

#[test]
fn the_primary_file_names_a_node_or_is_absent() {
    let (dir, mount) = mount();
    assert_eq!(mount.read_primary().unwrap(), None);
    fs::write(dir.path().join(".primary"), "node-a\n").unwrap();
    assert_eq!(mount.read_primary().unwrap().unwrap().as_ref(), "node-a");
}

#[test]
fn a_primary_file_that_says_nothing_sensible_is_a_typed_error() {
    let (dir, mount) = mount();
    let file = dir.path().join(".primary");
    for bad in [&b""[..], b"\n", b"\xff\n", b"a\nb\n"] {
        fs::write(&file, bad).unwrap();
        assert!(matches!(mount.read_primary(), Err(MountError::Malformed { .. })), "{bad:?}");
    }
    fs::write(&file, vec![b'a'; MAX_FILE + 1]).unwrap();
    assert!(matches!(mount.read_primary(), Err(MountError::TooLarge(_))));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(mount.read_primary(), Err(MountError::Io { .. })));
}

#[test]
fn d5_a_missing_mount_directory_is_gone_not_absent() {
    let (dir, mount) = mount();
    dir.close().unwrap();
    assert!(matches!(mount.read_primary(), Err(MountError::Gone(_))));
    assert!(matches!(mount.read_lag(), Err(MountError::Gone(_))));
    let read = PositionFile::default().read(&mount);
    assert!(matches!(read, Err(PositionError::Mount(MountError::Gone(_)))), "{read:?}");
    assert_eq!(mount.probe(), Probe::Gone);
}

#[test]
fn a_dead_litefs_is_told_by_enotconn_and_econnaborted() {
    let (_dir, mount) = mount();
    for kind in [io::ErrorKind::NotConnected, io::ErrorKind::ConnectionAborted] {
        let error = mount.explain(Path::new("x"), kind.into());
        assert!(matches!(error, MountError::NotConnected(_)));
    }
}

#[test]
fn lag_is_a_signed_number_of_milliseconds() {
    let lag = |text: &str| parse_lag(text.as_bytes()).map(|lag| lag.as_millis());
    assert_eq!(lag("+000000350\n"), Ok(350));
    assert_eq!(lag("+2147483647\n"), Ok(2_147_483_647));
    assert_eq!(lag("-000000005\n"), Ok(0));
    for bad in ["", "+", "-", "350", "+-5", "+1 ", "++1", "+99999999999999999999"] {
        assert!(lag(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_position_is_read_only_once_the_database_exists() {
    let (dir, mount) = mount();
    let mut file = PositionFile::default();
    fs::write(dir.path().join("app.db-pos"), "0000000000000001/0000000000000001\n").unwrap();
    assert!(matches!(file.read(&mount), Err(PositionError::NoDatabase(_))));
    fs::write(dir.path().join("app.db"), "").unwrap();
    assert_eq!(file.read(&mount).unwrap(), position("0000000000000001/0000000000000001"));
}

#[test]
fn a_position_file_that_is_not_there_is_not_created() {
    let (dir, mount) = mount();
    fs::write(dir.path().join("app.db"), "").unwrap();
    assert!(matches!(PositionFile::default().read(&mount), Err(PositionError::Absent(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_kept_descriptor_sees_every_change_and_recovers_from_a_bad_one() {
    let (dir, mount) = mount();
    let pos = dir.path().join("app.db-pos");
    fs::write(dir.path().join("app.db"), "").unwrap();
    let mut file = PositionFile::default();
    for text in ["0000000000000002/00000000000000aa", "0000000000000001/00000000000000bb"] {
        fs::write(&pos, format!("{text}\n")).unwrap();
        assert_eq!(file.read(&mount).unwrap(), position(text));
    }
    fs::write(&pos, "x".repeat(80)).unwrap();
    assert!(matches!(file.read(&mount), Err(PositionError::Mount(MountError::TooLarge(_)))));
    // A new file under the old name: the descriptor was dropped with the error, so it is found.
    fs::remove_file(&pos).unwrap();
    fs::write(&pos, "0000000000000003/00000000000000cc\n").unwrap();
    assert_eq!(file.read(&mount).unwrap(), position("0000000000000003/00000000000000cc"));
}

#[test]
fn any_special_file_shows_that_litefs_is_here() {
    let (dir, mount) = mount();
    fs::write(dir.path().join("app.db"), "").unwrap();
    assert_eq!(mount.probe(), Probe::Plain);
    for (name, content) in [
        (".primary", "a\n"),
        (".lag", "+000000000\n"),
        ("app.db-pos", "0000000000000001/0000000000000001\n"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, content).unwrap();
        assert_eq!(mount.probe(), Probe::Marker, "{name}");
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_link_to_a_database_leads_to_its_mount() {
    let (dir, mount) = mount();
    fs::write(mount.database(), "").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(dir.path().join("app.db"), &link).unwrap();
    assert_eq!(Mount::new(&link).dir(), mount.dir());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
        let _ = (parse_primary(&bytes), parse_lag(&bytes), parse_position(&bytes));
    }
}
