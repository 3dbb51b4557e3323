//! Transactions without nesting.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::BigInt;

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::{FULL_BLOG, Named, User, everybody, posts, user, users};

fn names(conn: &mut Conn) -> Vec<String> {
    users::table.order(users::id).select(users::name).load(conn).unwrap()
}

fn add(conn: &mut Conn, name: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(users::name.eq(name)).execute(conn)
}

#[test]
fn commit_their_writes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        add(conn, "New")?;
        diesel::delete(posts::table).execute(conn)
    });
    assert_eq!(result, Ok(3));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
    assert_eq!(posts::table.count().get_result::<i64>(conn), Ok(0));
}

#[test]
fn roll_back_when_the_closure_fails() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        add(conn, "New")?;
        diesel::delete(posts::table).execute(conn)?;
        Err::<(), _>(Error::NotFound)
    });
    assert_eq!(result, Err(Error::NotFound));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada"]);
    assert_eq!(posts::table.count().get_result::<i64>(conn), Ok(3));
}

#[test]
fn roll_back_when_a_statement_fails() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        add(conn, "New")?;
        add(conn, "Sean")
    });
    assert_eq!(refused(result), ("unique", "UNIQUE constraint failed: users.name".to_owned()));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada"]);
    assert_eq!(add(conn, "After"), Ok(1));
}

#[test]
fn fail_with_errors_of_the_users_own() {
    #[derive(Debug, PartialEq)]
    enum Failed {
        Database(Error),
        Mine(&'static str),
    }
    impl From<Error> for Failed {
        fn from(error: Error) -> Self {
            Self::Database(error)
        }
    }
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        add(conn, "New")?;
        Err::<(), _>(Failed::Mine("no"))
    });
    assert_eq!(result, Err(Failed::Mine("no")));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada"]);
}

#[test]
fn see_their_own_writes() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.transaction(|conn| {
        assert_eq!(names(conn).len(), 3);
        add(conn, "New")?;
        assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
        diesel::update(users::table.filter(users::name.eq("New")))
            .set(users::age.eq(1))
            .execute(conn)?;
        assert_eq!(users::table.find(4).first::<User>(conn), Ok(user(4, "New", None, 1)));
        diesel::delete(users::table.find(4)).execute(conn)?;
        assert_eq!(names(conn).len(), 3);
        QueryResult::Ok(())
    })
    .unwrap();
}

#[test]
fn are_not_seen_by_others_before_the_commit() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let other = &mut fixture.another();
    fixture
        .transaction(|conn| {
            add(conn, "New")?;
            assert_eq!(names(other), ["Sean", "Tess", "Ada"]);
            QueryResult::Ok(())
        })
        .unwrap();
    assert_eq!(names(other), ["Sean", "Tess", "Ada", "New"]);
}

#[test]
fn keep_reading_their_snapshot() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let other = &mut fixture.another();
    fixture
        .transaction(|conn| {
            assert_eq!(names(conn).len(), 3);
            add(other, "New")?;
            assert_eq!(names(conn).len(), 3);
            QueryResult::Ok(())
        })
        .unwrap();
    assert_eq!(names(fixture).len(), 4);
}

#[test]
fn that_only_read_commit_and_roll_back() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(conn.transaction(|conn| users::table.load::<User>(conn)), Ok(everybody()));
    let result = conn.transaction(|conn| users::table.find(99).first::<User>(conn));
    assert_eq!(result, Err(Error::NotFound));
    assert_eq!(names(conn).len(), 3);
}

#[test]
fn that_do_nothing_commit_and_roll_back() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(conn.transaction(|_| QueryResult::Ok(1)), Ok(1));
    assert_eq!(conn.transaction(|_| Err::<(), _>(Error::NotFound)), Err(Error::NotFound));
    assert_eq!(add(conn, "After"), Ok(1));
}

#[test]
fn return_rows_inside() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        let one: User =
            diesel::insert_into(users::table).values(users::name.eq("a")).get_result(conn)?;
        assert_eq!(one, user(4, "a", None, 18));
        let rows: Vec<User> =
            sql_query("INSERT INTO users (name, age) VALUES ('b', 1), ('c', 2) RETURNING *")
                .load(conn)?;
        assert_eq!(rows, [user(5, "b", None, 1), user(6, "c", None, 2)]);
        diesel::update(&one)
            .set(users::age.eq(users::age + 1))
            .returning(users::age)
            .get_result::<i32>(conn)
    });
    assert_eq!(result, Ok(19));
}

#[test]
fn go_on_after_an_error_that_was_caught() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.transaction(|conn| {
        add(conn, "first")?;
        assert_eq!(refused(add(conn, "Sean")).0, "unique");
        assert_eq!(refused(sql_query("nonsense").execute(conn)).0, "unknown");
        assert_eq!(refused(sql_query("SELECT * FROM nowhere").execute(conn)).0, "unknown");
        let orphan =
            diesel::insert_into(posts::table).values((posts::user_id.eq(99), posts::title.eq("x")));
        assert_eq!(refused(orphan.execute(conn)).0, "foreign key");
        assert_eq!(users::table.find(99).first::<User>(conn), Err(Error::NotFound));
        add(conn, "second")
    })
    .unwrap();
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "first", "second"]);
}

#[test]
fn go_on_after_their_first_write_failed() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        assert_eq!(refused(add(conn, "Sean")).0, "unique");
        add(conn, "New")
    });
    assert_eq!(result, Ok(1));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
}

#[test]
fn read_first_and_go_on_after_their_first_write_failed() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        assert_eq!(names(conn).len(), 3);
        assert_eq!(refused(add(conn, "Sean")).0, "unique");
        assert_eq!(names(conn).len(), 3);
        add(conn, "New")
    });
    assert_eq!(result, Ok(1));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
}

/// `INSERT OR ROLLBACK` ends the transaction inside SQLite. Diesel does not notice, so its COMMIT
/// fails.
#[test]
fn that_sqlite_ended_by_itself_cannot_commit() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let result = conn.transaction(|conn| {
        add(conn, "New")?;
        assert_eq!(
            refused(
                sql_query("INSERT OR ROLLBACK INTO users (name) VALUES ('Sean')").execute(conn)
            )
            .0,
            "unique"
        );
        QueryResult::Ok(())
    });
    assert!(result.is_err(), "{result:?}");
    assert_eq!(names(conn), ["Sean", "Tess", "Ada"]);
}

#[test]
fn change_the_schema() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let count =
        |conn: &mut Conn| sql::<BigInt>("SELECT count(*) FROM fresh").get_result::<i64>(conn);
    let result = conn.transaction(|conn| {
        sql_query("CREATE TABLE fresh (x)").execute(conn)?;
        sql_query("INSERT INTO fresh VALUES (1)").execute(conn)?;
        assert_eq!(count(conn), Ok(1));
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(result, Err(Error::RollbackTransaction));
    assert_eq!(refused(count(conn)), ("unknown", "no such table: fresh".to_owned()));
    conn.transaction(|conn| {
        conn.batch_execute("CREATE TABLE fresh (x); INSERT INTO fresh VALUES (1), (2)")
    })
    .unwrap();
    assert_eq!(count(conn), Ok(2));
}

#[test]
fn by_sql() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("BEGIN").execute(conn).unwrap();
    add(conn, "a").unwrap();
    sql_query("COMMIT").execute(conn).unwrap();
    conn.batch_execute("BEGIN IMMEDIATE TRANSACTION").unwrap();
    add(conn, "b").unwrap();
    conn.batch_execute("ROLLBACK").unwrap();
    conn.batch_execute("begin exclusive;").unwrap();
    add(conn, "c").unwrap();
    conn.batch_execute("end transaction").unwrap();
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "a", "c"]);
}

#[test]
fn by_sql_in_the_wrong_order() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let no_commit = ("unknown", "cannot commit - no transaction is active".to_owned());
    let no_rollback = ("unknown", "cannot rollback - no transaction is active".to_owned());
    let nested = ("unknown", "cannot start a transaction within a transaction".to_owned());
    assert_eq!(refused(conn.batch_execute("COMMIT")), no_commit);
    assert_eq!(refused(conn.batch_execute("ROLLBACK")), no_rollback);
    conn.batch_execute("BEGIN").unwrap();
    assert_eq!(refused(conn.batch_execute("BEGIN")), nested);
    assert_eq!(names(conn).len(), 3);
    assert_eq!(refused(conn.batch_execute("BEGIN IMMEDIATE")), nested);
    add(conn, "New").unwrap();
    assert_eq!(refused(conn.batch_execute("BEGIN")), nested);
    conn.batch_execute("COMMIT").unwrap();
    assert_eq!(refused(conn.batch_execute("COMMIT")), no_commit);
    assert_eq!(names(conn).len(), 4);
}

#[test]
fn of_the_transaction_manager() {
    let conn = &mut *fresh_with(FULL_BLOG);
    AnsiTransactionManager::begin_transaction(conn).unwrap();
    add(conn, "a").unwrap();
    AnsiTransactionManager::commit_transaction(conn).unwrap();
    AnsiTransactionManager::begin_transaction(conn).unwrap();
    add(conn, "b").unwrap();
    AnsiTransactionManager::rollback_transaction(conn).unwrap();
    let none = AnsiTransactionManager::commit_transaction(conn);
    assert!(matches!(none, Err(Error::NotInTransaction)), "{none:?}");
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "a"]);
}

#[test]
fn of_tests_never_commit() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let read: Vec<String> = fixture.test_transaction::<_, Error, _>(|conn| {
        add(conn, "New")?;
        Ok(names(conn))
    });
    assert_eq!(read, ["Sean", "Tess", "Ada", "New"]);
    assert_eq!(names(fixture), ["Sean", "Tess", "Ada"]);
}

#[test]
fn of_tests_last_as_long_as_the_connection() {
    let fixture = fresh_with(FULL_BLOG);
    {
        let conn = &mut fixture.another();
        conn.begin_test_transaction().unwrap();
        add(conn, "New").unwrap();
        conn.transaction(|conn| add(conn, "Newer")).unwrap();
        assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New", "Newer"]);
        assert_eq!(refused(add(conn, "New")).0, "unique");
        assert_eq!(names(conn).len(), 5);
    }
    assert_eq!(names(&mut fixture.another()), ["Sean", "Tess", "Ada"]);
}

#[test]
fn of_immediate_kind() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let conn: &mut Conn = fixture;
    let written = conn.immediate_transaction(|conn| add(conn, "New"));
    assert_eq!(written, Ok(1));
    let failed = conn.immediate_transaction(|conn| {
        add(conn, "Newer")?;
        Err::<(), _>(Error::NotFound)
    });
    assert_eq!(failed, Err(Error::NotFound));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
}

#[test]
fn of_immediate_kind_keep_other_writers_waiting() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let mut other = fixture.another();
    let conn: &mut Conn = fixture;
    conn.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    other.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    let seen = std::thread::scope(|scope| {
        let waiting = conn.immediate_transaction(|conn| {
            // On a replica the first statement takes the lock.
            add(conn, "first")?;
            let waiting = scope
                .spawn(move || other.immediate_transaction(|conn| QueryResult::Ok(names(conn))));
            QueryResult::Ok(waiting)
        });
        waiting.unwrap().join().unwrap()
    });
    assert_eq!(seen, Ok(["Sean", "Tess", "Ada", "first"].map(str::to_owned).to_vec()));
}

#[test]
fn of_exclusive_kind() {
    let fixture = &mut fresh_with(FULL_BLOG);
    let conn: &mut Conn = fixture;
    assert_eq!(conn.exclusive_transaction(|conn| add(conn, "New")), Ok(1));
    let nested =
        conn.exclusive_transaction(|conn| conn.exclusive_transaction(|conn| add(conn, "Newer")));
    assert_eq!(nested, Err(Error::AlreadyInTransaction));
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "New"]);
}

#[test]
fn of_ten_thousand_rows() {
    let conn = &mut *fresh_with(FULL_BLOG);
    let inserted: Vec<String> = (0..10_000).map(|i| format!("user {i}")).collect();
    conn.transaction(|conn| {
        let rows: Vec<_> = inserted.iter().map(|name| Named { name, age: 1 }).collect();
        assert_eq!(diesel::insert_into(users::table).values(&rows).execute(conn), Ok(10_000));
        assert_eq!(names(conn).len(), 10_003);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(names(conn)[3..], inserted);
}
