//! The row, without a cluster.

use super::*;
use crate::options::LiteFsBuilder;

fn term_start(node: &str) -> Option<Position> {
    format!("000000000000000{node}/8000000000000000").parse().ok()
}

#[test]
fn the_row_contains_the_last_terms() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db").to_str().unwrap().to_owned();
    let table = TrackingTable::new(&LiteFsBuilder::new(&database).build().unwrap());
    assert_eq!(table.terms(), [], "there is no file");
    let entry = |node: &str| Entry { node: node.into(), rpc_address: "there:1".into() };
    let term = |node: &str| Term { node: node.into(), term_start: term_start(node).unwrap() };
    table.claim(&entry("a"), term_start("a")).unwrap();
    table.claim(&entry("a"), term_start("c")).unwrap();
    table.claim(&entry("b"), None).unwrap();
    table.claim(&entry("c"), term_start("c")).unwrap();
    assert_eq!(table.terms(), [term("a"), term("c")]);
    for _ in 0..100 {
        table.claim(&entry("a"), term_start("a")).unwrap();
        table.claim(&entry("b"), term_start("b")).unwrap();
    }
    let terms = table.terms();
    assert!((40..60).contains(&terms.len()), "{}", terms.len());
    assert_eq!(terms.last(), Some(&term("b")));
}

#[test]
fn t2_a_row_that_says_the_same_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db").to_str().unwrap().to_owned();
    let table = TrackingTable::new(&LiteFsBuilder::new(&database).build().unwrap());
    let entry = |node: &str| Entry { node: node.into(), rpc_address: "there:1".into() };
    table.claim(&entry("a"), term_start("a")).unwrap();
    // Changes when another connection commits.
    let mut watcher = SqliteConnection::establish(&database).unwrap();
    let mut version = || {
        let mut rows = watcher.load(BoundQuery::new("PRAGMA data_version", &[], false)).unwrap();
        value(&rows.next().unwrap().unwrap().get(0).unwrap())
    };
    let before = version();
    table.claim(&entry("a"), term_start("a")).unwrap();
    assert_eq!(version(), before);
    table.claim(&entry("b"), term_start("b")).unwrap();
    assert_ne!(version(), before);
    assert_eq!(table.read(), Some(entry("b")));
}

#[tokio::test]
async fn t5_concurrent_refreshes_of_the_row_are_one_query() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db").to_str().unwrap().to_owned();
    std::fs::write(dir.path().join(".primary"), "a\n").unwrap();
    let position = |txid: u8| {
        let text = format!("00000000000000{txid:02x}/8000000000000000\n");
        std::fs::write(dir.path().join("app.db-pos"), text).unwrap();
    };
    position(1);
    let options = LiteFsBuilder::new(&database).build().unwrap();
    let table = Arc::new(TrackingTable::new(&options));
    let entry = |node: &str| Entry { node: node.into(), rpc_address: "there:1".into() };
    table.claim(&entry("a"), term_start("a")).unwrap();
    let tracker = Tracker::start(options.config.clone()).await.unwrap();
    let primary: NodeName = "a".parse().unwrap();

    let refreshes = (0..16).map(|_| table.refresh(&tracker, &primary));
    assert!(futures::future::join_all(refreshes).await.into_iter().all(|found| found));
    assert_eq!(table.queries.load(Ordering::Relaxed), 1);
    assert_eq!(tracker.rpc_address(&primary), "there:1");

    // A transaction may have changed the row.
    table.claim(&entry("b"), term_start("b")).unwrap();
    position(2);
    assert!(!table.refresh(&tracker, &primary).await);
    assert_eq!(table.queries.load(Ordering::Relaxed), 2);
    assert!(!table.refresh(&tracker, &primary).await);
    assert_eq!(table.queries.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_address_that_is_learned_wakes_callers() {
    use litefs_rpc::client::PrimaryLocator as _;
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db").to_str().unwrap().to_owned();
    std::fs::write(dir.path().join(".primary"), "a\n").unwrap();
    let options = LiteFsBuilder::new(&database).build().unwrap();
    let tracker = Tracker::start(options.config.clone()).await.unwrap();
    let seen = tracker.location();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut changed = tracker.changed(&seen, deadline);
    assert!(futures::poll!(&mut changed).is_pending());
    tracker.learn_address(&"a".parse().unwrap(), "there:1");
    changed.await;
    assert_ne!(tracker.location(), seen);
}

/// A database with what `sql` makes in it, and the table there.
fn found(sql: &str) -> (tempfile::TempDir, TrackingTable) {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db").to_str().unwrap().to_owned();
    SqliteConnection::establish(&database).unwrap().batch_execute(sql).unwrap();
    let table = TrackingTable::new(&LiteFsBuilder::new(&database).build().unwrap());
    (dir, table)
}

#[test]
fn another_object_in_the_tables_place_is_reported() {
    const TABLE: &str =
        "CREATE TABLE _litefs_primary (id INTEGER PRIMARY KEY, node, rpc_address, since, terms)";
    for shape in [
        "CREATE TABLE _litefs_primary (id INTEGER PRIMARY KEY, name TEXT)".to_owned(),
        "CREATE TABLE _litefs_primary (id, node, rpc_address, since, terms)".to_owned(),
        "CREATE VIEW _litefs_primary AS SELECT 1 id, '' node, '' rpc_address, 0 since, '' terms"
            .to_owned(),
        TABLE.replace("terms", "terms, more NOT NULL"),
        format!(
            "{TABLE}; CREATE TRIGGER t BEFORE INSERT ON _litefs_primary BEGIN \
             SELECT RAISE(IGNORE); END"
        ),
        format!(
            "{TABLE}; CREATE TRIGGER t AFTER INSERT ON _litefs_primary BEGIN \
             DELETE FROM _litefs_primary; END"
        ),
    ] {
        let (_dir, table) = found(&shape);
        let entry = Entry { node: "a".into(), rpc_address: "there:1".into() };
        let claimed = table.claim(&entry, term_start("a"));
        let Err(Unclaimed::Unusable(what)) = claimed else { panic!("{shape}: {claimed:?}") };
        assert!(what.contains("_litefs_primary") && what.contains("drop"), "{what}");
        assert_ne!(table.read(), Some(entry), "{shape}");
    }
}

#[test]
fn a_row_of_another_version_is_used_as_it_is() {
    for shape in [
        "CREATE TABLE _litefs_primary (id INTEGER PRIMARY KEY CHECK (id = 1), node TEXT NOT NULL, \
         rpc_address TEXT NOT NULL, since INTEGER NOT NULL); \
         INSERT INTO _litefs_primary VALUES (1, 'b', 'here:1', 7)",
        "CREATE TABLE _litefs_primary (id INTEGER PRIMARY KEY, node TEXT NOT NULL, rpc_address \
         TEXT NOT NULL, since INTEGER NOT NULL, terms TEXT NOT NULL, more INTEGER NOT NULL \
         DEFAULT 3)",
    ] {
        let (_dir, table) = found(shape);
        let entry = Entry { node: "a".into(), rpc_address: "there:1".into() };
        table.claim(&entry, term_start("a")).unwrap();
        assert_eq!(table.read(), Some(entry));
        assert_eq!(
            table.terms(),
            [Term { node: "a".into(), term_start: term_start("a").unwrap() }]
        );
        let older = "INSERT INTO _litefs_primary (id, node, rpc_address, since) \
                     VALUES (1, 'c', 'c:1', 9) ON CONFLICT (id) DO UPDATE SET node = excluded.node";
        if !shape.contains("more") {
            table.open().unwrap().batch_execute(older).unwrap();
            assert_eq!(table.read().map(|entry| entry.node).as_deref(), Some("c"));
        }
    }
}
