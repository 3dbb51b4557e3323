//! Exactly-once execution when requests or replies are lost: scenarios F1 to F4 of the acceptance
//! list.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_diesel::{BatchInsertDsl, Delivery, Failure, Fate, LiteFsConnection, Outcome};
use litefs_rpc::wire::Output;
use litefs_testkit::{Relay, Traffic};
use litefs_tests::{TestCluster, relay, wait_until};

diesel::table! { notes { id -> Integer, text -> Text, stars -> Nullable<Integer>, } }

const SCHEMA: &str =
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, stars INTEGER)";

#[derive(Insertable)]
#[diesel(table_name = notes)]
struct NewNote {
    text: &'static str,
    stars: Option<i32>,
}

/// Three nodes; the primary is reached through a relay.
fn test_cluster(timeout: Duration) -> (TestCluster, Relay) {
    test_cluster_with(timeout, 2)
}

fn test_cluster_with(timeout: Duration, exclusive_connections: usize) -> (TestCluster, Relay) {
    let relay = relay();
    let test = TestCluster::behind(&["a", "b", "c"], &[("a", &relay)], |_, builder| {
        builder.forward_timeout(timeout).exclusive_connections(exclusive_connections)
    });
    test.schema(SCHEMA);
    // The connection exists already: the relay loses a statement or its reply, not the handshake.
    test.conn("b").batch_execute("DELETE FROM notes").unwrap();
    (test, relay)
}

const LONG: Duration = Duration::from_secs(10);

fn texts(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<String> {
    notes::table.select(notes::text).order(notes::id).load(conn).unwrap()
}

fn insert(conn: &mut LiteFsConnection, text: &str) -> QueryResult<i32> {
    diesel::insert_into(notes::table)
        .values(notes::text.eq(text))
        .returning(notes::id)
        .get_result(conn)
}

#[test]
fn f1_a_write_with_a_lost_reply_is_applied_and_answered_once() {
    let (test, relay) = test_cluster(LONG);
    let mut conn = test.conn("b");
    let batch = || vec![NewNote { text: "d", stars: None }, NewNote { text: "d", stars: Some(1) }];
    type Step<'a> = &'a dyn Fn(&mut LiteFsConnection) -> usize;
    let steps: [(&str, Step<'_>); 7] = [
        ("execute", &|conn| {
            diesel::insert_into(notes::table).values(notes::text.eq("a")).execute(conn).unwrap()
        }),
        ("returning", &|conn| usize::try_from(insert(conn, "b").unwrap() - 1).unwrap()),
        ("script", &|conn| {
            conn.batch_execute("INSERT INTO notes (text) VALUES ('c'); UPDATE notes SET stars = 1")
                .map(|()| 1)
                .unwrap()
        }),
        ("batch", &|conn| {
            diesel::insert_into(notes::table).values(batch()).execute_at_once(conn).unwrap() - 1
        }),
        ("schema", &|conn| conn.batch_execute("CREATE TABLE extra (x)").map(|()| 1).unwrap()),
        ("script with a transaction", &|conn| {
            conn.batch_execute("BEGIN; INSERT INTO notes (text) VALUES ('e'); COMMIT")
                .map(|()| 1)
                .unwrap()
        }),
        ("update", &|conn| {
            diesel::sql_query("UPDATE notes SET text = text || '!' WHERE text = 'e'")
                .execute(conn)
                .unwrap()
        }),
    ];
    for (what, step) in steps {
        let before = test.litefs("b").round_trips();
        relay.set_replies(Traffic::Lose(1));
        assert_eq!(step(&mut conn), 1, "{what}");
        assert_eq!(test.litefs("b").round_trips() - before, 2, "{what}: sent twice");
    }
    assert_eq!(texts(&mut conn), ["a", "b", "c", "d", "d", "e!"]);
    assert_eq!(texts(&mut test.plain("a")), ["a", "b", "c", "d", "d", "e!"]);
}

#[test]
fn f1_a_write_that_loses_several_replies_is_applied_once() {
    let (test, relay) = test_cluster(LONG);
    let mut conn = test.conn("b");
    let before = test.litefs("b").round_trips();
    relay.set_replies(Traffic::Lose(3));
    assert_eq!(insert(&mut conn, "x"), Ok(1));
    assert_eq!(test.litefs("b").round_trips() - before, 4);
    assert_eq!(texts(&mut test.plain("a")), ["x"]);
}

#[test]
fn f1_a_failure_with_a_lost_reply_is_returned() {
    let (test, relay) = test_cluster(LONG);
    let mut conn = test.conn("b");
    let script = "INSERT INTO notes (text) VALUES ('kept'); INSERT INTO notes (id, text) \
                  VALUES (1, 'taken')";
    relay.set_replies(Traffic::Lose(1));
    let error = conn.batch_execute(script).unwrap_err();
    assert!(error.to_string().contains("UNIQUE"), "{error}");
    assert_eq!(texts(&mut conn), ["kept"], "the first statement, once");
    relay.set_replies(Traffic::Lose(1));
    let error =
        diesel::sql_query("INSERT INTO notes (id) VALUES (2)").execute(&mut conn).unwrap_err();
    assert!(error.to_string().contains("NOT NULL"), "{error}");
}

#[test]
fn f1_at_most_once_returns_an_unknown_outcome() {
    let (test, relay) = test_cluster(LONG);
    let mut conn = test.conn("b");
    relay.set_replies(Traffic::Lose(1));
    let error = conn.with_delivery(Delivery::AtMostOnce, |conn| insert(conn, "x")).unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown), "{error}");
    assert_eq!(Failure::of(&error).map(Failure::fate), Some(Fate::Unknown));
    assert_eq!(conn.delivery(), Delivery::ExactlyOnce);
    wait_until("the write", || texts(&mut test.plain("a")) == ["x"]);
    conn.batch_execute("DELETE FROM notes WHERE id = 77").unwrap();
    relay.set_requests(Traffic::Lose(1));
    let error = conn.with_delivery(Delivery::AtMostOnce, |conn| insert(conn, "y")).unwrap_err();
    assert_eq!(
        Failure::of(&error),
        Some(Failure::OutcomeUnknown),
        "the request may have arrived: {error}"
    );
    assert_eq!(texts(&mut test.plain("a")), ["x"]);
}

#[test]
fn f1_a_transaction_survives_the_loss_of_any_reply() {
    // BEGIN with the first statement, the second statement, COMMIT.
    for lost in 0..3 {
        let (test, relay) = test_cluster(LONG);
        let mut conn = test.conn("b");
        let lose = |step| {
            if step == lost {
                relay.set_replies(Traffic::Lose(1));
            }
        };
        let result = conn.immediate_transaction(|conn| {
            lose(0);
            insert(conn, "one")?;
            lose(1);
            insert(conn, "two")?;
            lose(2);
            QueryResult::Ok(())
        });
        result.unwrap();
        assert_eq!(texts(&mut conn), ["one", "two"], "{lost}");
        // The connection is still usable.
        conn.transaction(|conn| insert(conn, "three")).unwrap();
        assert_eq!(texts(&mut conn).last().map(String::as_str), Some("three"));
    }
}

/// The write is committed and replicated, its reply is lost: the next primary has its outcome.
#[test]
fn f2_a_write_whose_primary_dies_is_applied_once() {
    // The promoted node is another node, or the node that waits.
    for next in ["c", "b"] {
        let (test, relay) = test_cluster(LONG);
        let mut conn = test.conn("b");
        relay.set_replies(Traffic::Capture);
        let id = std::thread::scope(|scope| {
            let write = scope.spawn(|| insert(&mut conn, "x"));
            for node in ["b", "c"] {
                wait_until("the row", || texts(&mut test.plain(node)) == ["x"]);
            }
            test.cluster.promote(next).unwrap();
            write.join().unwrap()
        });
        assert_eq!(id, Ok(1), "{next}");
        test.sync();
        assert_eq!(texts(&mut test.plain("c")), ["x"], "{next}");
        assert_eq!(texts(&mut conn), ["x"]);
        assert_eq!(insert(&mut conn, "y"), Ok(2));
    }
}

#[test]
fn f3_an_undelivered_write_is_applied_by_the_new_primary() {
    for next in ["c", "b"] {
        let (test, relay) = test_cluster(LONG);
        let mut conn = test.conn("b");
        relay.set_requests(Traffic::Capture);
        let id = std::thread::scope(|scope| {
            let write = scope.spawn(|| insert(&mut conn, "x"));
            wait_until("the request", || relay.captured() >= 1);
            test.cluster.promote(next).unwrap();
            write.join().unwrap()
        });
        assert_eq!(id, Ok(1), "{next}");
        test.sync();
        assert_eq!(texts(&mut test.plain("c")), ["x"], "{next}");
    }
}

#[test]
fn f4_a_resolved_outcome_refuses_a_late_request() {
    // An exclusive connection is closed after a timeout; on a shared one a request may arrive
    // later.
    let (test, relay) = test_cluster_with(Duration::from_millis(400), 0);
    let mut conn = test.conn("b");
    // Not applied: the request arrives only after its outcome was asked for.
    relay.set_requests(Traffic::Capture);
    let error = insert(&mut conn, "late").unwrap_err();
    assert_eq!(Failure::of(&error), Some(Failure::OutcomeUnknown), "{error}");
    let late = Failure::write_of(&error).unwrap();
    relay.set_requests(Traffic::Pass);
    // Another process would have its own connection; the one of this process is blocked.
    assert_eq!(test.litefs("c").outcome(late), Ok(Outcome::NotApplied));
    let answered = relay.replies_received();
    relay.release_first().unwrap();
    wait_until("the refusal", || relay.replies_received() > answered);
    assert!(texts(&mut test.plain("a")).is_empty());
    assert_eq!(
        test.litefs("a").outcome(late),
        Ok(Outcome::NotApplied),
        "the primary returns the same outcome"
    );
    relay.cut();

    // Applied: only the reply is missing.
    test.conn("b").batch_execute("DELETE FROM notes").unwrap();
    relay.set_replies(Traffic::Capture);
    let error = test
        .conn("b")
        .with_delivery(Delivery::ExactlyOnce, |conn| {
            diesel::sql_query("INSERT INTO notes (text) VALUES ('applied')").execute(conn)
        })
        .unwrap_err();
    let applied = Failure::write_of(&error).unwrap_or_else(|| panic!("{error}"));
    relay.set_replies(Traffic::Pass);
    relay.cut();
    for node in ["a", "b", "c"] {
        let outcome = test.litefs(node).outcome(applied);
        assert!(
            matches!(outcome, Ok(Outcome::Applied(Output::Count(1), _))),
            "{node}: {outcome:?}"
        );
    }
    assert_eq!(texts(&mut test.conn("b")), ["applied"]);
}

/// The last number of an error message that ends with "waited 1.2s in all", in seconds.
fn waited(message: &str) -> f64 {
    let text = message.split("waited ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().unwrap() / 1_000.0,
        None => text.strip_suffix('s').unwrap().parse().unwrap(),
    }
}

#[test]
fn a_timeout_contains_the_total_time_waited() {
    let (test, _relay) = test_cluster(Duration::from_millis(400));
    let mut lock = test.plain("a");
    lock.batch_execute("BEGIN IMMEDIATE").unwrap();
    let mut conn = test.conn("b");
    let write = insert(&mut conn, "x").unwrap_err().to_string();
    let begin = conn.immediate_transaction(|conn| insert(conn, "x")).unwrap_err().to_string();
    for message in [write, begin] {
        assert!(message.contains("did not answer: waited "), "{message}");
        assert!((0.4..3.0).contains(&waited(&message)), "{message}");
    }
}
