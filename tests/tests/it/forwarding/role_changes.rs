//! Writes while the primary changes.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_diesel::Failure;
use litefs_tests::TestCluster;

use super::{SCHEMA, items, names, test_cluster};

#[test]
fn m16_a_write_rejected_after_a_demotion_is_forwarded() {
    // Node a learns of its demotion from the rejection of its own write.
    let test = TestCluster::configured(&["a", "b"], |_, builder| {
        let events_only =
            litefs_core::Detectors { primary_file: false, ..litefs_core::Detectors::ALL };
        builder.tracker(|tracker| {
            tracker.detectors(events_only).poll_interval(Duration::from_secs(60))
        })
    });
    test.schema(SCHEMA);
    let (mut counted, mut returned, mut script) = (test.conn("a"), test.conn("a"), test.conn("a"));
    let item = |name: &'static str| diesel::insert_into(items::table).values(items::name.eq(name));
    item("before").execute(&mut counted).unwrap();
    test.sync();
    test.cluster
        .node("a")
        .set_event_stream_fault(litefs_testkit::EventStreamFault::Silent)
        .unwrap();
    test.cluster.promote("b").unwrap();
    assert_eq!(
        test.litefs("a").role(),
        litefs_core::Role::Primary,
        "it has not learned of its demotion"
    );
    let written: String =
        item("returned").returning(items::name).get_result(&mut returned).unwrap();
    assert_eq!(written, "returned");
    assert!(matches!(test.litefs("a").role(), litefs_core::Role::Replica { .. }));
    assert_eq!(item("counted").execute(&mut counted), Ok(1));
    script.batch_execute("INSERT INTO items (name) VALUES ('script')").unwrap();
    assert_eq!(names(&mut test.plain("b")), ["before", "returned", "counted", "script"]);
    assert_eq!(names(&mut counted), ["before", "returned", "counted", "script"]);
}

#[test]
fn a_local_commit_that_litefs_drops_is_not_acknowledged() {
    type Write = fn(&mut litefs_diesel::LiteFsConnection) -> QueryResult<()>;
    let item = || diesel::insert_into(items::table).values(items::name.eq("lost"));
    let writes: [Write; 4] = [
        |conn| {
            diesel::insert_into(items::table).values(items::name.eq("lost")).execute(conn).map(drop)
        },
        |conn| {
            let insert = diesel::insert_into(items::table).values(items::name.eq("lost"));
            insert.returning(items::id).get_result::<i32>(conn).map(drop)
        },
        |conn| conn.batch_execute("INSERT INTO items (name) VALUES ('lost')"),
        |conn| {
            conn.transaction(|conn| {
                diesel::sql_query("INSERT INTO items (name) VALUES ('lost')")
                    .execute(conn)
                    .map(drop)
            })
        },
    ];
    for (way, write) in writes.into_iter().enumerate() {
        let test = test_cluster();
        let mut conn = test.conn("a");
        item().execute(&mut conn).unwrap();
        diesel::delete(items::table).execute(&mut conn).unwrap();
        test.sync();
        test.cluster.node("a").drop_next_commit().unwrap();
        let Err(error) = write(&mut conn) else { panic!("way {way} was acknowledged") };
        assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown), "{error}");
        assert!(names(&mut test.plain("b")).is_empty());
    }
}

#[test]
fn writes_continue_through_promotions_back_and_forth() {
    let test = test_cluster();
    let mut conn = test.conn("a");
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let mut writer = test.conn(from);
        test.cluster.promote(to).unwrap();
        let name = format!("x{round}");
        let insert = || {
            diesel::insert_into(items::table).values(items::name.eq(&name)).returning(items::name)
        };
        let written = insert().get_result::<String>(&mut writer);
        test.wait_for_roles();
        test.sync();
        match written {
            Ok(written) => assert_eq!(written, name),
            // A commit during the change of the role is not confirmed: check, then write the
            // missing row.
            Err(error) if Failure::of(&error) == Some(Failure::OutcomeUnknown) => {
                if !names(&mut writer).contains(&name) {
                    insert().get_result::<String>(&mut writer).unwrap();
                    test.sync();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(names(&mut conn), ["x0", "x1", "x2", "x3"]);
}
