//! The main use case in one test.

use diesel::prelude::*;
use litefs_tests::TestCluster;

diesel::table! { notes { id -> Integer, text -> Text, } }

#[test]
fn a_replica_writes_and_reads_its_own_writes() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)");
    let mut conn = test.conn("b");
    let id: i32 = diesel::insert_into(notes::table)
        .values(notes::text.eq("hello"))
        .returning(notes::id)
        .get_result(&mut conn)
        .unwrap();
    let text: String = notes::table.find(id).select(notes::text).get_result(&mut conn).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(test.litefs("b").round_trips(), 1);
    let text: String =
        notes::table.find(id).select(notes::text).get_result(&mut test.plain("a")).unwrap();
    assert_eq!(text, "hello");
}

mod glob {
    use litefs_diesel::*;

    #[test]
    fn a_glob_import_does_not_hide_rusts_core() {
        let builder = LiteFs::builder("/litefs/app.db").read_timeout(core::time::Duration::ZERO);
        assert!(matches!(builder.start(), Err(StartError::Config(_))));
    }
}
