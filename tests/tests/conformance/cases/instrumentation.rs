//! The user's instrumentation receives each of the user's queries once, and no other query.

use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;

use super::{Conn, fresh_with};
use crate::schema::{FULL_BLOG, Sparse, User, posts, users};

/// The received events, one line each, without the differences that come from SQLite's cache of
/// prepared statements.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let line = match event {
            InstrumentationEvent::StartQuery { query, .. } => format!("start {query}"),
            InstrumentationEvent::FinishQuery { query, error: None, .. } => {
                format!("finish {query}")
            }
            InstrumentationEvent::FinishQuery { query, error: Some(error), .. } => {
                format!("fail {query}: {error}")
            }
            InstrumentationEvent::BeginTransaction { depth, .. } => format!("begin {depth}"),
            InstrumentationEvent::CommitTransaction { depth, .. } => format!("commit {depth}"),
            InstrumentationEvent::RollbackTransaction { depth, .. } => format!("rollback {depth}"),
            InstrumentationEvent::CacheQuery { .. } => return,
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Recorder {
    fn on(conn: &mut Conn) -> Self {
        let recorder = Self::default();
        conn.set_instrumentation(recorder.clone());
        recorder
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The events of a query that was started and finished.
fn once(sql: &str) -> Vec<String> {
    vec![format!("start {sql}"), format!("finish {sql}")]
}

#[test]
fn a_read() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    for _ in 0..2 {
        users::table.find(1).select(users::name).get_result::<String>(conn).unwrap();
        assert_eq!(
            recorder.take(),
            once("SELECT `users`.`name` FROM `users` WHERE (`users`.`id` = ?) -- binds: [1]")
        );
    }
}

#[test]
fn a_write() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    for _ in 0..2 {
        diesel::update(users::table.find(1)).set(users::age.eq(5)).execute(conn).unwrap();
        let sql = "UPDATE `users` SET `age` = ? WHERE (`users`.`id` = ?) -- binds: [5, 1]";
        assert_eq!(recorder.take(), once(sql));
    }
}

#[test]
fn a_write_that_returns() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    let insert =
        diesel::insert_into(users::table).values(users::name.eq("New")).returning(users::id);
    insert.get_result::<i32>(conn).unwrap();
    let sql = "INSERT INTO `users` (`name`) VALUES (?) RETURNING `id` -- binds: [\"New\"]";
    assert_eq!(recorder.take(), once(sql));
}

#[test]
fn a_read_after_a_write() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    sql_query("DELETE FROM posts").execute(conn).unwrap();
    posts::table.count().get_result::<i64>(conn).unwrap();
    let expected =
        [once("DELETE FROM posts -- binds: []"), once("SELECT COUNT(*) FROM `posts` -- binds: []")]
            .concat();
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_failure() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    sql_query("UPDATE users SET name = 'x'").execute(conn).unwrap_err();
    sql_query("SELECT * FROM nowhere").execute(conn).unwrap_err();
    let expected = [
        "start UPDATE users SET name = 'x' -- binds: []",
        "fail UPDATE users SET name = 'x' -- binds: []: UNIQUE constraint failed: users.name",
        "start SELECT * FROM nowhere -- binds: []",
        "fail SELECT * FROM nowhere -- binds: []: no such table: nowhere",
    ];
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_script() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    let script = "DELETE FROM posts; CREATE TABLE t (x)";
    conn.batch_execute(script).unwrap();
    assert_eq!(recorder.take(), once(script));
}

#[test]
fn a_transaction_that_writes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    conn.transaction(|conn| sql_query("DELETE FROM posts").execute(conn)).unwrap();
    let begin = vec!["begin 1".to_owned()];
    let commit = vec!["commit 1".to_owned()];
    let expected =
        [begin, once("BEGIN"), once("DELETE FROM posts -- binds: []"), commit, once("COMMIT")]
            .concat();
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_transaction_that_reads_then_writes_and_rolls_back() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    conn.transaction(|conn| {
        users::table.select(users::id).load::<i32>(conn)?;
        sql_query("DELETE FROM posts").execute(conn)?;
        Err::<(), _>(Error::RollbackTransaction)
    })
    .unwrap_err();
    let expected = [
        vec!["begin 1".to_owned()],
        once("BEGIN"),
        once("SELECT `users`.`id` FROM `users` -- binds: []"),
        once("DELETE FROM posts -- binds: []"),
        vec!["rollback 1".to_owned()],
        once("ROLLBACK"),
    ]
    .concat();
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_nested_transaction() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    conn.transaction(|conn| conn.transaction(|conn| sql_query("DELETE FROM posts").execute(conn)))
        .unwrap();
    let expected = [
        vec!["begin 1".to_owned()],
        once("BEGIN"),
        vec!["begin 2".to_owned()],
        once("SAVEPOINT diesel_savepoint_1"),
        once("DELETE FROM posts -- binds: []"),
        vec!["commit 2".to_owned()],
        once("RELEASE SAVEPOINT diesel_savepoint_1"),
        vec!["commit 1".to_owned()],
        once("COMMIT"),
    ]
    .concat();
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_batch_with_defaults() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    let rows = vec![
        Sparse { name: "a", hair: None, age: None },
        Sparse { name: "b", hair: None, age: Some(7) },
    ];
    diesel::insert_into(users::table).values(rows).execute(conn).unwrap();
    let expected = [
        vec!["begin 1".to_owned()],
        once("BEGIN"),
        once("INSERT INTO `users` (`name`) VALUES (?) -- binds: [\"a\"]"),
        once("INSERT INTO `users` (`name`, `age`) VALUES (?, ?) -- binds: [\"b\", 7]"),
        vec!["commit 1".to_owned()],
        once("COMMIT"),
    ]
    .concat();
    assert_eq!(recorder.take(), expected);
}

#[test]
fn a_pragma_a_temporary_table_and_a_schema_change() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let recorder = Recorder::on(conn);
    let statements = [
        "PRAGMA foreign_keys = OFF",
        "CREATE TEMP TABLE scratch (x)",
        "INSERT INTO scratch VALUES (1)",
        "CREATE TABLE t (x)",
        "SELECT last_insert_rowid()",
    ];
    for statement in statements {
        sql_query(statement).execute(conn).unwrap();
        assert_eq!(recorder.take(), once(&format!("{statement} -- binds: []")));
    }
}

#[test]
fn the_numbers_of_the_last_write() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("INSERT INTO users (id, name) VALUES (9, 'x')").execute(conn).unwrap();
    let recorder = Recorder::on(conn);
    let rowid = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT last_insert_rowid()")
        .get_result::<i64>(conn);
    assert_eq!(rowid, Ok(9));
    assert_eq!(recorder.take(), once("SELECT last_insert_rowid() -- binds: []"));
}

#[test]
fn a_new_connection_reports_no_events() {
    let fixture = fresh_with(FULL_BLOG);
    let mut conn = fixture.another();
    let recorder = Recorder::on(&mut conn);
    users::table.load::<User>(&mut conn).unwrap();
    assert_eq!(recorder.take().len(), 2);
    drop(conn);
    assert_eq!(recorder.take(), Vec::<String>::new());
}

#[test]
fn the_users_instrumentation_can_be_downcast() {
    let conn = &mut *fresh_with(FULL_BLOG);
    Recorder::on(conn);
    sql_query("DELETE FROM posts").execute(conn).unwrap();
    let recorder =
        conn.instrumentation().downcast_mut::<Recorder>().expect("the type that was set");
    assert_eq!(recorder.take(), once("DELETE FROM posts -- binds: []"));
    // A boxed query is reported like the query itself.
    let boxed: Box<dyn Instrumentation> = Box::new(Recorder::default());
    conn.set_instrumentation(boxed);
    assert!(conn.instrumentation().is::<Recorder>());
    let event = InstrumentationEvent::begin_transaction(std::num::NonZeroU32::MIN);
    conn.instrumentation().on_connection_event(event);
    assert_eq!(conn.instrumentation().downcast_ref::<Recorder>().unwrap().take(), ["begin 1"]);
}

/// The events of a query, including those of the cache of prepared statements.
#[derive(Clone, Default)]
struct Cached(Arc<Mutex<Vec<String>>>);

impl Instrumentation for Cached {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let line = match event {
            InstrumentationEvent::StartQuery { .. } => "start".to_owned(),
            InstrumentationEvent::CacheQuery { sql, .. } => format!("cache {sql}"),
            InstrumentationEvent::FinishQuery { error: None, .. } => "finish".to_owned(),
            InstrumentationEvent::FinishQuery { error: Some(_), .. } => "fail".to_owned(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

/// The events of what `run` does.
fn events_of(conn: &mut Conn, run: impl FnOnce(&mut Conn)) -> Vec<String> {
    let cached = Cached::default();
    conn.set_instrumentation(cached.clone());
    run(conn);
    std::mem::take(&mut *cached.0.lock().unwrap())
}

#[test]
fn a_statement_is_reported_as_cached_once() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let delete = |conn: &mut Conn| {
        diesel::delete(posts::table.find(1)).execute(conn).unwrap();
    };
    let cache = "cache DELETE FROM `posts` WHERE (`posts`.`id` = ?)";
    assert_eq!(events_of(conn, delete), ["start", cache, "finish"]);
    assert_eq!(events_of(conn, delete), ["start", "finish"]);
    let insert = |conn: &mut Conn| {
        diesel::insert_into(users::table).values(users::name.eq("New")).execute(conn).ok();
    };
    let cache = "cache INSERT INTO `users` (`name`) VALUES (?)";
    assert_eq!(events_of(conn, insert), ["start", cache, "finish"]);
    assert_eq!(events_of(conn, insert), ["start", "fail"]);
    let returning = |conn: &mut Conn| {
        let insert =
            diesel::insert_into(users::table).values(users::age.eq(1)).returning(users::id);
        insert.get_result::<i32>(conn).unwrap_err();
        let insert =
            diesel::insert_into(users::table).values(users::name.eq("Last")).returning(users::id);
        insert.get_result::<i32>(conn).unwrap();
    };
    let lines = events_of(conn, returning);
    assert_eq!(lines[1], "cache INSERT INTO `users` (`age`) VALUES (?) RETURNING `id`");
    assert_eq!(lines[4], "cache INSERT INTO `users` (`name`) VALUES (?) RETURNING `id`");
    // Queries that Diesel does not keep prepared are not reported as cached.
    let update = |conn: &mut Conn| {
        diesel::update(users::table.find(1)).set(users::age.eq(5)).execute(conn).unwrap();
    };
    assert_eq!(events_of(conn, update), ["start", "finish"]);
}

#[test]
fn a_statement_that_cannot_be_prepared_is_not_cached() {
    diesel::table! { nowhere { id -> Integer, } }
    let conn = &mut *fresh_with(FULL_BLOG);
    for _ in 0..2 {
        let delete = |conn: &mut Conn| {
            diesel::delete(nowhere::table).execute(conn).unwrap_err();
        };
        assert_eq!(events_of(conn, delete), ["start", "cache DELETE FROM `nowhere`", "fail"]);
    }
}

#[test]
fn a_statement_cache_that_is_switched_off_reports_nothing() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.set_prepared_statement_cache_size(diesel::connection::CacheSize::Disabled);
    let delete = |conn: &mut Conn| {
        diesel::delete(posts::table).execute(conn).unwrap();
    };
    assert_eq!(events_of(conn, delete), ["start", "finish"]);
    conn.set_prepared_statement_cache_size(diesel::connection::CacheSize::Unbounded);
    assert_eq!(events_of(conn, delete), ["start", "cache DELETE FROM `posts`", "finish"]);
}
