//! PRAGMAs and session functions.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use litefs_tests::TestCluster;

use super::{OneInteger, denied, integer, note_into, test_cluster};

#[test]
fn pragmas_of_one_nodes_transaction_do_not_reach_another_node() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema("CREATE TABLE checked (n INTEGER CHECK (n > 0))");
    let bad = || diesel::sql_query("INSERT INTO checked VALUES (-1)");
    let mut conn = test.conn("b");
    for commits in [true, false] {
        let _ = conn.transaction(|conn| {
            diesel::sql_query("INSERT INTO checked VALUES (7)").execute(conn)?;
            conn.batch_execute("PRAGMA ignore_check_constraints = ON")?;
            if commits { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
        });
        assert!(bad().execute(&mut test.conn("c")).is_err());
        assert_eq!(bad().execute(&mut conn), Ok(1), "it is this connection's own setting");
        conn.batch_execute("PRAGMA ignore_check_constraints = OFF").unwrap();
    }
    let refused = conn.transaction(|conn| {
        diesel::sql_query("INSERT INTO checked VALUES (7)").execute(conn)?;
        conn.batch_execute("INSERT INTO checked VALUES (8); PRAGMA query_only = ON")
    });
    denied(refused);
    diesel::sql_query("INSERT INTO checked VALUES (9)").execute(&mut test.conn("c")).unwrap();
}

#[test]
fn foreign_keys_cannot_change_within_a_transaction() {
    let test = test_cluster();
    for node in ["a", "b"] {
        for (before, script) in [
            (1, "PRAGMA foreign_keys = OFF; DELETE FROM notes"),
            (0, "PRAGMA foreign_keys = OFF; DELETE FROM notes; PRAGMA foreign_keys = ON"),
        ] {
            let mut conn = test.conn(node);
            conn.batch_execute(&format!("PRAGMA foreign_keys = {before}")).unwrap();
            conn.transaction(|conn| conn.batch_execute(script)).unwrap();
            let now: Vec<OneInteger> =
                diesel::sql_query("PRAGMA foreign_keys").load(&mut conn).unwrap();
            assert_eq!(now[0].foreign_keys, before, "{node}");
        }
    }
}

#[test]
fn session_functions_in_statements_that_return_rows() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    conn.batch_execute("CREATE TEMP TABLE mine (x)").unwrap();
    note_into(&mut conn, "one").unwrap();
    let keep = diesel::dsl::sql::<BigInt>(
        "INSERT INTO temp.mine VALUES (last_insert_rowid()) RETURNING x",
    );
    assert_eq!(keep.get_result::<i64>(&mut conn), Ok(1));
    test.sync();
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    let add = "INSERT INTO notes (text, stars) VALUES ('two', last_insert_rowid()) RETURNING stars";
    assert_eq!(diesel::dsl::sql::<Integer>(add).get_result::<i32>(&mut conn), Ok(1));
    assert_eq!(integer(&mut conn, "last_insert_rowid()"), 2);
}
