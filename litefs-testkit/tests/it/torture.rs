//! Many threads that write and read at the same time.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;

use crate::support::{DB, LIMIT, cluster, connect, count, insert, number, word};

const WRITERS: usize = 8;
const ROUNDS: usize = 60;

#[test]
fn the_replica_is_identical_after_concurrent_load() {
    let cluster = cluster(&["a", "b"]);
    let (primary, replica) = (cluster.node("a"), cluster.node("b"));
    let before = primary.position(DB).txid;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut conn = connect(primary);
                for round in 0..ROUNDS {
                    insert(&mut conn, &format!("{writer}-{round}")).expect("insert");
                    assert!(count(&mut conn) > round as i64, "its own rows are there");
                    if round % 20 == writer {
                        // A busy checkpoint is not an error.
                        conn.batch_execute("PRAGMA wal_checkpoint(RESTART)").expect("checkpoint");
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut conn = connect(replica);
            let (mut last, deadline) = (0, Instant::now() + 4 * LIMIT);
            while last < (WRITERS * ROUNDS) as i64 {
                assert!(Instant::now() < deadline, "only {last} rows");
                let now = count(&mut conn);
                assert!(now >= last, "time went back");
                last = now;
                // Frequent readers would starve replication, as they do with LiteFS.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    });
    cluster.wait_for_sync(LIMIT).expect("sync");
    assert_eq!(primary.position(DB).txid, before + (WRITERS * ROUNDS) as u64);
    for node in [primary, replica] {
        let mut conn = connect(node);
        assert_eq!(word(&mut conn, "integrity_check AS word FROM pragma_integrity_check"), "ok");
        assert_eq!(
            number(&mut conn, "SELECT count(DISTINCT name) FROM item"),
            (WRITERS * ROUNDS) as i64
        );
    }
    connect(primary).batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").expect("checkpoint");
    let read = |node: &litefs_testkit::Node| std::fs::read(node.database_path(DB)).expect("file");
    assert!(read(primary) == read(replica), "other bytes");
}
