//! The row in which a primary publishes its address: scenarios T1 to T5 of the acceptance list.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use litefs_core::{Detectors, NodeName, Role};
use litefs_diesel::{Failure, LiteFs};
use litefs_tests::{DATABASE, TestCluster, wait_until};

#[derive(QueryableByName, Debug, PartialEq)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    node: String,
    #[diesel(sql_type = Text)]
    rpc_address: String,
    #[diesel(sql_type = BigInt)]
    since: i64,
}

fn rows(test: &TestCluster, node: &str) -> Vec<Row> {
    diesel::sql_query("SELECT * FROM _litefs_primary").load(&mut test.plain(node)).unwrap()
}

fn address(test: &TestCluster, node: &str) -> String {
    test.litefs(node).rpc_address().unwrap().to_string()
}

#[test]
fn t1_the_first_primary_creates_the_table_once() {
    let mut test = TestCluster::start(&["a", "b"]);
    test.sync();
    let before = rows(&test, "a");
    assert_eq!(before.len(), 1);
    assert_eq!((before[0].id, before[0].node.as_str()), (1, "a"));
    let position = test.cluster.node("a").position(DATABASE);
    let same_port = test.litefs("a").rpc_address().unwrap();
    test.stop("a");
    let again = test.builder("a").listen(same_port).start().unwrap();
    wait_until("the server", || again.rpc_address() == Some(same_port));
    // Write something else through the new handle: a second write of the row would make two
    // transactions.
    again.establish().unwrap().batch_execute("CREATE TABLE t (x)").unwrap();
    assert_eq!(test.cluster.node("a").position(DATABASE).txid, position.txid + 1);
    assert_eq!(rows(&test, "a"), before);
}

#[test]
fn t2_a_promotion_writes_the_one_row_once() {
    let test = TestCluster::start(&["a", "b"]);
    test.sync();
    let before = test.cluster.node("a").position(DATABASE).txid;
    test.cluster.promote("b").unwrap();
    test.wait_for_roles();
    test.sync();
    for node in ["a", "b"] {
        let rows = rows(&test, node);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].node.as_str(), rows[0].rpc_address.as_str()),
            ("b", address(&test, "b").as_str())
        );
    }
    assert_eq!(test.cluster.node("b").position(DATABASE).txid, before + 1);
    // Reconnected event streams are not a promotion.
    test.cluster.node("b").drop_event_streams().unwrap();
    test.conn("b").batch_execute("CREATE TABLE t (x)").unwrap();
    assert_eq!(test.cluster.node("b").position(DATABASE).txid, before + 2);
}

#[test]
fn t3_a_replica_cannot_write_the_row() {
    let test = TestCluster::start(&["a", "b"]);
    test.sync();
    let before = rows(&test, "b");
    let error = test.plain("b").batch_execute("UPDATE _litefs_primary SET node = 'b'").unwrap_err();
    assert!(error.to_string().contains("disk I/O error"), "{error}");
    assert_eq!(rows(&test, "b"), before);
    assert_eq!(rows(&test, "a"), before);
}

#[test]
fn t4_replicas_use_the_row_or_else_the_host_name() {
    let test = TestCluster::start(&["a", "b"]);
    let Role::Replica { primary } = test.litefs("b").role() else { panic!("b is a replica") };
    assert_eq!(test.litefs("b").tracker().rpc_address(&primary), address(&test, "a"));
    let unknown: NodeName = "elsewhere".parse().unwrap();
    assert_eq!(test.litefs("b").tracker().rpc_address(&unknown), "elsewhere:20203");
    let with_port: NodeName = "elsewhere:7".parse().unwrap();
    assert_eq!(test.litefs("b").tracker().rpc_address(&with_port), "elsewhere:7");
}

#[test]
fn t4_the_table_can_be_renamed_and_disabled() {
    let named = TestCluster::configured(&["a", "b"], |_, builder| {
        builder.tracker(|t| t.tracking_table("where_to"))
    });
    named.sync();
    let count: i64 = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM where_to")
        .get_result(&mut named.plain("b"))
        .unwrap();
    assert_eq!(count, 1);

    let cluster =
        litefs_testkit::Cluster::builder().nodes(["c"]).database(DATABASE).start().unwrap();
    let node = cluster.node("c");
    let url = node.http_url();
    let off = LiteFs::builder(&node.database_url(DATABASE))
        .listen("127.0.0.1:0".parse().unwrap())
        .tracker(|t| t.http_url(&url).detectors(Detectors { row: false, ..Detectors::ALL }))
        .start()
        .unwrap();
    wait_until("the role", || off.role() == Role::Primary);
    let mut conn = off.establish().unwrap();
    conn.batch_execute("CREATE TABLE t (x)").unwrap();
    let tables: i64 =
        diesel::dsl::sql::<BigInt>("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%litefs%'")
            .get_result(&mut conn)
            .unwrap();
    assert_eq!(tables, 0);
}

#[test]
fn t5_a_promotion_replaces_the_address_at_once() {
    let test = TestCluster::start(&["a", "b", "c"]);
    test.schema("CREATE TABLE t (x)");
    let mut conn = test.conn("c");
    for primary in ["b", "a", "b"] {
        test.cluster.promote(primary).unwrap();
        // Without a wait: the write itself finds the new primary's address.
        let written = diesel::sql_query("INSERT INTO t VALUES (1)").execute(&mut conn);
        assert_eq!(written.map_err(|error| (Failure::of(&error), error.to_string())), Ok(1));
        // The former primary may have named the new one before this node's own LiteFS did.
        let named = || match test.litefs("c").role() {
            Role::Replica { primary: named } if named.as_ref() == primary => Some(named),
            _ => None,
        };
        wait_until("the news of the promotion", || {
            named().is_some_and(|named| {
                test.litefs("c").tracker().rpc_address(&named) == address(&test, primary)
            })
        });
    }
}
