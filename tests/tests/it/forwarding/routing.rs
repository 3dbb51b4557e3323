//! Routers, and how a connection finds its handle.

use diesel::prelude::*;
use litefs_diesel::{EverythingOnPrimary, Failure, RejectWrites, Route, Router, Situation};
use litefs_tests::{DATABASE, TestCluster};

use super::{SCHEMA, everything, items, names, test_cluster};

#[test]
fn m10_a_call_can_override_the_route() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    let trips = || test.litefs("b").round_trips();
    conn.on_primary(|conn| -> QueryResult<()> {
        assert!(names(conn).is_empty());
        Ok(())
    })
    .unwrap();
    assert_eq!(trips(), 1);
    let error = conn
        .on_local(|conn| {
            diesel::insert_into(items::table).values(items::name.eq("x")).execute(conn)
        })
        .unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(trips(), 1);
    assert_eq!(
        diesel::insert_into(items::table).values(items::name.eq("x")).execute(&mut conn),
        Ok(1)
    );
    assert_eq!(trips(), 2);
}

/// A router that sends the reads of one table to the primary.
struct Fresh;

impl Router for Fresh {
    fn route(&self, situation: &Situation<'_>) -> Route {
        if situation.sql().contains("everything") { Route::Primary } else { Route::Local }
    }
}

#[test]
fn m11_built_in_and_custom_routers() {
    let with = |router: fn(litefs_diesel::LiteFsBuilder) -> litefs_diesel::LiteFsBuilder| {
        let test = TestCluster::configured(&["a", "b"], |_, builder| router(builder));
        test.schema(SCHEMA);
        test
    };
    let everywhere = with(|builder| builder.router(EverythingOnPrimary));
    names(&mut everywhere.conn("b"));
    assert_eq!(everywhere.litefs("b").round_trips(), 1);

    let rejecting = with(|builder| builder.router(RejectWrites));
    let error = diesel::insert_into(items::table)
        .values(items::name.eq("x"))
        .execute(&mut rejecting.conn("b"));
    assert_eq!(Failure::of(&error.unwrap_err()), Some(Failure::Rejected));
    assert_eq!(
        diesel::insert_into(items::table)
            .values(items::name.eq("x"))
            .execute(&mut rejecting.conn("a")),
        Ok(1)
    );

    let own = with(|builder| builder.router(Fresh));
    let mut conn = own.conn("b");
    names(&mut conn);
    assert_eq!(own.litefs("b").round_trips(), 0);
    let _: i64 = everything::table.count().get_result(&mut conn).unwrap();
    assert_eq!(own.litefs("b").round_trips(), 1);
}

#[test]
fn a_path_finds_its_handle_and_a_second_handle_fails() {
    let test = test_cluster();
    let url = test.cluster.node("b").database_url(DATABASE);
    let mut conn = litefs_diesel::LiteFsConnection::establish(&url).unwrap();
    diesel::insert_into(items::table).values(items::name.eq("x")).execute(&mut conn).unwrap();
    assert_eq!(test.litefs("b").round_trips(), 1, "it belongs to the handle that was started");
    // D17
    let second = test.builder("b").start();
    assert!(matches!(second, Err(litefs_diesel::StartError::AlreadyStarted(_))), "{second:?}");
}
