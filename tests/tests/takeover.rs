//! What readers must not notice of a failover, found by the nemesis (`--bin nemesis`).

use diesel::prelude::*;
use litefs_diesel::LiteFsConnection;
use litefs_diesel::core::RoleKind;
use litefs_tests::{Bed, DATABASE, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, } }

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

fn add(conn: &mut LiteFsConnection, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values(notes::text.eq(text)).execute(conn)
}

/// Seed 32 of the nemesis, at 37.8 s. The local file is ahead in numbers, but in a history that is over.
#[test]
fn r7_a_replica_ahead_of_a_new_primary_does_not_take_its_own_old_history_for_what_was_written() {
    let bed = Bed::start(&["a", "b", "c"]);
    bed.schema(SCHEMA);
    let (b, c) = (bed.cluster.node("b"), bed.cluster.node("c"));
    // All know where the server of each is.
    for primary in ["b", "a"] {
        bed.cluster.promote(primary).unwrap();
        bed.settle();
    }
    b.stall_replication().unwrap();
    let mut primary = bed.conn("a");
    for text in ["one", "two", "three", "four"] {
        add(&mut primary, text).unwrap();
    }
    let far = bed.cluster.node("a").position(DATABASE);
    c.wait_until(litefs_tests::PATIENCE, |status| status.positions.get(DATABASE) == Some(&far)).unwrap();
    drop(primary);
    bed.cluster.kill("a").unwrap();
    // What the new primary sends takes its time: node c stays where it was.
    c.stall_replication().unwrap();
    b.become_primary().unwrap();
    c.follow(b).unwrap();
    wait_until("the new primary", || bed.litefs("b").role().kind() == RoleKind::Primary);
    let mut conn = bed.conn("c");
    wait_until("a write through the new primary", || add(&mut conn, "mine").is_ok());
    let texts: Vec<String> = notes::table.select(notes::text).load(&mut conn).unwrap();
    assert_eq!(texts, ["mine"], "what this process wrote, in the history that lives");
}
