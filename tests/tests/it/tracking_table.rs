//! The row in which a primary leaves its address: scenarios T1 to T5 of the acceptance list.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use litefs_diesel::core::{Detectors, NodeName, Role};
use litefs_diesel::{Failure, LiteFs};
use litefs_tests::{Bed, DATABASE, wait_until};

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

fn rows(bed: &Bed, node: &str) -> Vec<Row> {
    diesel::sql_query("SELECT * FROM _litefs_primary").load(&mut bed.plain(node)).unwrap()
}

fn address(bed: &Bed, node: &str) -> String {
    bed.litefs(node).rpc_address().unwrap().to_string()
}

#[test]
fn t1_the_first_primary_makes_the_table_and_a_restart_changes_nothing() {
    let mut bed = Bed::start(&["a", "b"]);
    bed.sync();
    let before = rows(&bed, "a");
    assert_eq!(before.len(), 1);
    assert_eq!((before[0].id, before[0].node.as_str()), (1, "a"));
    let position = bed.cluster.node("a").position(DATABASE);
    let same_port = bed.litefs("a").rpc_address().unwrap();
    bed.stop("a");
    let again = bed.builder("a").listen(same_port).start().unwrap();
    wait_until("the server", || again.rpc_address() == Some(same_port));
    // Something else is written through the new handle; were the row written again, it would be two transactions.
    again.establish().unwrap().batch_execute("CREATE TABLE t (x)").unwrap();
    assert_eq!(bed.cluster.node("a").position(DATABASE).txid, position.txid + 1);
    assert_eq!(rows(&bed, "a"), before);
}

#[test]
fn t2_a_promotion_writes_the_one_row_once() {
    let bed = Bed::start(&["a", "b"]);
    bed.sync();
    let before = bed.cluster.node("a").position(DATABASE).txid;
    bed.cluster.promote("b").unwrap();
    bed.settle();
    bed.sync();
    for node in ["a", "b"] {
        let rows = rows(&bed, node);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].node.as_str(), rows[0].rpc_address.as_str()), ("b", address(&bed, "b").as_str()));
    }
    assert_eq!(bed.cluster.node("b").position(DATABASE).txid, before + 1);
    // Event streams that come back are no promotion.
    bed.cluster.node("b").drop_event_streams().unwrap();
    bed.conn("b").batch_execute("CREATE TABLE t (x)").unwrap();
    assert_eq!(bed.cluster.node("b").position(DATABASE).txid, before + 2);
}

#[test]
fn t3_a_replicas_attempt_to_write_the_row_is_rejected_and_changes_nothing() {
    let bed = Bed::start(&["a", "b"]);
    bed.sync();
    let before = rows(&bed, "b");
    let error = bed.plain("b").batch_execute("UPDATE _litefs_primary SET node = 'b'").unwrap_err();
    assert!(error.to_string().contains("disk I/O error"), "{error}");
    assert_eq!(rows(&bed, "b"), before);
    assert_eq!(rows(&bed, "a"), before);
}

#[test]
fn t4_replicas_take_the_address_from_the_row_and_without_one_from_the_name() {
    let bed = Bed::start(&["a", "b"]);
    let Role::Replica { primary } = bed.litefs("b").role() else { panic!("b is a replica") };
    assert_eq!(bed.litefs("b").tracker().rpc_address(&primary), address(&bed, "a"));
    let unknown: NodeName = "elsewhere".parse().unwrap();
    assert_eq!(bed.litefs("b").tracker().rpc_address(&unknown), "elsewhere:20203");
    let with_port: NodeName = "elsewhere:7".parse().unwrap();
    assert_eq!(bed.litefs("b").tracker().rpc_address(&with_port), "elsewhere:7");
}

#[test]
fn t4_the_table_has_the_name_it_is_given_and_can_be_switched_off() {
    let named = Bed::configured(&["a", "b"], |_, builder| builder.tracker(|t| t.tracking_table("where_to")));
    named.sync();
    let count: i64 = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM where_to")
        .get_result(&mut named.plain("b"))
        .unwrap();
    assert_eq!(count, 1);

    let cluster = litefs_testkit::Cluster::builder().nodes(["c"]).database(DATABASE).start().unwrap();
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
    let bed = Bed::start(&["a", "b", "c"]);
    bed.schema("CREATE TABLE t (x)");
    let mut conn = bed.conn("c");
    for primary in ["b", "a", "b"] {
        bed.cluster.promote(primary).unwrap();
        // No waiting in between: the write itself finds the new primary's address.
        let written = diesel::sql_query("INSERT INTO t VALUES (1)").execute(&mut conn);
        assert_eq!(written.map_err(|error| (Failure::of(&error), error.to_string())), Ok(1));
        // The former primary may have named the new one before this node's own LiteFS did.
        let named = || match bed.litefs("c").role() {
            Role::Replica { primary: named } if named.as_ref() == primary => Some(named),
            _ => None,
        };
        wait_until("the news of the promotion", || {
            named()
                .is_some_and(|named| bed.litefs("c").tracker().rpc_address(&named) == address(&bed, primary))
        });
    }
}
