//! Tests of the answers of `/info`.

use super::*;

fn mount() -> (tempfile::TempDir, Mount) {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(&dir.path().join("app.db"));
    (dir, mount)
}

#[test]
fn the_answer_tells_the_role_and_on_the_primary_its_own_name() {
    let parse = |body: &str| parse_info(body.as_bytes());
    let info = parse(
        r#"{"clusterID":"x","isPrimary":true,"candidate":true,"path":"/d",
            "primary":{"hostname":"a"}}"#,
    );
    let info = info.unwrap();
    assert_eq!((info.claim, info.own_name.unwrap().as_ref()), (Claim::Primary, "a"));
    assert_eq!(info.path, Path::new("/d"));
    let info = parse(r#"{"isPrimary":false,"path":"/d","primary":{"hostname":"b:1"}}"#).unwrap();
    assert_eq!((info.claim, info.own_name), (Claim::Replica("b:1".parse().unwrap()), None));
    let info = parse(r#"{"isPrimary":false,"path":"/d","primary":{"hostname":""}}"#).unwrap();
    assert_eq!(info.claim, Claim::NoPrimary);
    for bad in [
        "",
        "{}",
        "<html>",
        r#"{"isPrimary":1}"#,
        r#"{"isPrimary":false,"primary":{"hostname":"a b"}}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_answer_is_foreign_only_if_its_data_directory_lacks_our_database() {
    let (dir, mount) = mount();
    let data = tempfile::tempdir().unwrap();
    let judge = |path: &Path| owner_of(&mount, path);
    assert_eq!(judge(dir.path()), Owner::ThisMount);
    // Not visible from here, as in another container.
    assert_eq!(judge(Path::new("/nowhere")), Owner::Unclear);
    std::fs::create_dir(data.path().join("dbs")).unwrap();
    // The database does not exist yet.
    assert_eq!(judge(data.path()), Owner::Unclear);
    std::fs::write(mount.database(), "").unwrap();
    assert_eq!(judge(data.path()), Owner::OtherMount);
    std::fs::create_dir(data.path().join("dbs/app.db")).unwrap();
    assert_eq!(judge(data.path()), Owner::Unclear);
}
