//! The main job in one test.

use diesel::prelude::*;
use litefs_tests::Bed;

diesel::table! { notes { id -> Integer, text -> Text, } }

#[test]
fn a_replica_writes_through_its_normal_connection_and_reads_back_what_it_wrote() {
    let bed = Bed::start(&["a", "b"]);
    bed.schema("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)");
    let mut conn = bed.conn("b");
    let id: i32 = diesel::insert_into(notes::table)
        .values(notes::text.eq("hello"))
        .returning(notes::id)
        .get_result(&mut conn)
        .unwrap();
    let text: String = notes::table.find(id).select(notes::text).get_result(&mut conn).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(bed.litefs("b").round_trips(), 1);
    let text: String = notes::table.find(id).select(notes::text).get_result(&mut bed.plain("a")).unwrap();
    assert_eq!(text, "hello");
}
