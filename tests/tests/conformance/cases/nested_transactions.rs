//! Savepoints, by Diesel and by SQL.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_query;
use diesel::sql_types::Integer;

use super::{Conn, fresh_with};
use crate::refused;

const TABLE: &str = "CREATE TABLE t (x INTEGER UNIQUE)";

fn xs(conn: &mut Conn) -> Vec<i32> {
    sql::<Integer>("SELECT x FROM t ORDER BY x").load(conn).unwrap()
}

fn add(conn: &mut Conn, x: i32) -> QueryResult<usize> {
    sql_query("INSERT INTO t VALUES (?)").bind::<Integer, _>(x).execute(conn)
}

fn depth(conn: &mut Conn) -> Option<u32> {
    let status = AnsiTransactionManager::transaction_manager_status_mut(conn);
    status.transaction_depth().expect("the manager is not broken").map(Into::into)
}

#[test]
fn two_levels_commit() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        add(conn, 1)?;
        conn.transaction(|conn| add(conn, 2))?;
        add(conn, 3)
    })
    .unwrap();
    assert_eq!(xs(conn), [1, 2, 3]);
}

#[test]
fn the_inner_rolls_back_and_the_outer_commits() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        add(conn, 1)?;
        let inner = conn.transaction(|conn| {
            add(conn, 2)?;
            assert_eq!(xs(conn), [1, 2]);
            Err::<(), _>(Error::NotFound)
        });
        assert_eq!(inner, Err(Error::NotFound));
        assert_eq!(xs(conn), [1]);
        add(conn, 3)
    })
    .unwrap();
    assert_eq!(xs(conn), [1, 3]);
}

#[test]
fn the_outer_rolls_the_inner_back() {
    let conn = &mut *fresh_with(TABLE);
    let result = conn.transaction(|conn| {
        conn.transaction(|conn| add(conn, 1))?;
        Err::<(), _>(Error::NotFound)
    });
    assert_eq!(result, Err(Error::NotFound));
    assert!(xs(conn).is_empty());
}

#[test]
fn three_levels() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        add(conn, 1)?;
        conn.transaction(|conn| {
            add(conn, 2)?;
            let third = conn.transaction(|conn| {
                add(conn, 3)?;
                assert_eq!(depth(conn), Some(3));
                Err::<(), _>(Error::NotFound)
            });
            assert_eq!(third, Err(Error::NotFound));
            add(conn, 4)
        })?;
        let second = conn.transaction(|conn| {
            conn.transaction(|conn| add(conn, 5))?;
            Err::<(), _>(Error::NotFound)
        });
        assert_eq!(second, Err(Error::NotFound));
        assert_eq!(depth(conn), Some(1));
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(depth(conn), None);
    assert_eq!(xs(conn), [1, 2, 4]);
}

#[test]
fn the_first_write_of_all_is_in_the_inner_and_rolls_back() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        let inner = conn.transaction(|conn| {
            add(conn, 1)?;
            Err::<(), _>(Error::NotFound)
        });
        assert_eq!(inner, Err(Error::NotFound));
        assert!(xs(conn).is_empty());
        conn.transaction(|conn| add(conn, 2))
    })
    .unwrap();
    assert_eq!(xs(conn), [2]);
}

#[test]
fn reads_at_every_level_before_the_first_write() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        assert!(xs(conn).is_empty());
        conn.transaction(|conn| {
            assert!(xs(conn).is_empty());
            conn.transaction(|conn| add(conn, 1))?;
            assert_eq!(xs(conn), [1]);
            Err::<(), _>(Error::RollbackTransaction)
        })
        .unwrap_err();
        assert!(xs(conn).is_empty());
        add(conn, 2)
    })
    .unwrap();
    assert_eq!(xs(conn), [2]);
}

#[test]
fn a_failed_statement_rolls_back_its_level_only() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        add(conn, 1)?;
        let inner = conn.transaction(|conn| {
            add(conn, 2)?;
            add(conn, 1)
        });
        assert_eq!(refused(inner).0, "unique");
        assert_eq!(xs(conn), [1]);
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(xs(conn), [1]);
}

#[test]
fn savepoints_by_sql_inside_a_transaction() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        add(conn, 1)?;
        sql_query("SAVEPOINT mine").execute(conn)?;
        add(conn, 2)?;
        conn.batch_execute("SAVEPOINT \"an inner one\"")?;
        add(conn, 3)?;
        conn.batch_execute("ROLLBACK TO \"an inner one\"")?;
        assert_eq!(xs(conn), [1, 2]);
        add(conn, 4)?;
        conn.batch_execute("ROLLBACK TRANSACTION TO SAVEPOINT mine")?;
        assert_eq!(xs(conn), [1]);
        add(conn, 5)?;
        conn.batch_execute("RELEASE mine")
    })
    .unwrap();
    assert_eq!(xs(conn), [1, 5]);
}

#[test]
fn a_savepoint_by_sql_opens_a_transaction() {
    let conn = &mut *fresh_with(TABLE);
    conn.batch_execute("SAVEPOINT a").unwrap();
    add(conn, 1).unwrap();
    conn.batch_execute("RELEASE a").unwrap();
    conn.batch_execute("SAVEPOINT b").unwrap();
    add(conn, 2).unwrap();
    conn.batch_execute("ROLLBACK TO b").unwrap();
    add(conn, 3).unwrap();
    conn.batch_execute("RELEASE SAVEPOINT B").unwrap();
    conn.batch_execute("SAVEPOINT c").unwrap();
    add(conn, 4).unwrap();
    conn.batch_execute("ROLLBACK").unwrap();
    assert_eq!(xs(conn), [1, 3]);
    assert_eq!(
        refused(conn.batch_execute("RELEASE c")),
        ("unknown", "no such savepoint: c".to_owned())
    );
}

#[test]
fn savepoints_of_the_same_name_nest() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        conn.batch_execute("SAVEPOINT s")?;
        add(conn, 1)?;
        conn.batch_execute("SAVEPOINT s")?;
        add(conn, 2)?;
        conn.batch_execute("ROLLBACK TO s")?;
        assert_eq!(xs(conn), [1]);
        conn.batch_execute("RELEASE s")?;
        conn.batch_execute("ROLLBACK TO s")?;
        assert!(xs(conn).is_empty());
        conn.batch_execute("RELEASE s")?;
        let none = conn.batch_execute("RELEASE s");
        assert_eq!(refused(none), ("unknown", "no such savepoint: s".to_owned()));
        add(conn, 3)
    })
    .unwrap();
    assert_eq!(xs(conn), [3]);
}

#[test]
fn a_savepoint_that_is_not_there() {
    let conn = &mut *fresh_with(TABLE);
    conn.transaction(|conn| {
        assert_eq!(
            refused(conn.batch_execute("ROLLBACK TO s")),
            ("unknown", "no such savepoint: s".to_owned())
        );
        add(conn, 1)?;
        assert_eq!(
            refused(conn.batch_execute("RELEASE s")),
            ("unknown", "no such savepoint: s".to_owned())
        );
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(xs(conn), [1]);
}

#[test]
fn a_batch_with_defaults_is_a_savepoint_inside_a_transaction() {
    use crate::schema::{BLOG, Sparse, users};
    let conn = &mut *fresh_with(BLOG);
    conn.transaction(|conn| {
        let row = |name| Sparse { name, hair: None, age: None };
        diesel::insert_into(users::table).values(vec![row("a"), row("b")]).execute(conn)?;
        let taken =
            diesel::insert_into(users::table).values(vec![row("c"), row("a")]).execute(conn);
        assert_eq!(refused(taken).0, "unique");
        QueryResult::Ok(())
    })
    .unwrap();
    assert_eq!(
        users::table.select(users::name).load(conn),
        Ok(vec!["a".to_owned(), "b".to_owned()])
    );
}

#[test]
fn a_deferred_constraint_is_checked_at_the_outermost_commit() {
    let conn = &mut *fresh_with(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);
         CREATE TABLE t (x INTEGER REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let result = conn.transaction(|conn| {
        conn.transaction(|conn| add(conn, 1))?;
        assert_eq!(xs(conn), [1]);
        QueryResult::Ok(())
    });
    assert_eq!(refused(result), ("foreign key", "FOREIGN KEY constraint failed".to_owned()));
    assert!(xs(conn).is_empty());
    assert_eq!(depth(conn), None);
}
