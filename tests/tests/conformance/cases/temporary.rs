//! Temporary tables, which belong to the connection.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};

use super::{Conn, fresh_with};
use crate::refused;
use crate::schema::FULL_BLOG;

fn xs(conn: &mut Conn) -> Vec<i32> {
    sql::<Integer>("SELECT x FROM scratch ORDER BY x").load(conn).unwrap()
}

#[test]
fn are_written_and_read() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("CREATE TEMP TABLE scratch (x INTEGER UNIQUE)").execute(conn).unwrap();
    assert_eq!(sql_query("INSERT INTO scratch VALUES (1), (2), (3)").execute(conn), Ok(3));
    assert_eq!(sql_query("DELETE FROM temp.scratch WHERE x = 2").execute(conn), Ok(1));
    assert_eq!(
        sql::<Integer>("UPDATE scratch SET x = x * 10 RETURNING x").load::<i32>(conn),
        Ok(vec![10, 30])
    );
    assert_eq!(xs(conn), [10, 30]);
    let taken = sql_query("INSERT INTO scratch VALUES (10)").execute(conn);
    assert_eq!(refused(taken), ("unique", "UNIQUE constraint failed: scratch.x".to_owned()));
    sql_query("DROP TABLE scratch").execute(conn).unwrap();
    let gone = sql::<Integer>("SELECT x FROM scratch").load::<i32>(conn);
    assert_eq!(refused(gone), ("unknown", "no such table: scratch".to_owned()));
}

#[test]
fn are_not_visible_to_other_connections() {
    let fixture = &mut fresh_with(FULL_BLOG);
    fixture
        .batch_execute("CREATE TEMP TABLE scratch (x INTEGER); INSERT INTO scratch VALUES (1)")
        .unwrap();
    let other = sql::<Integer>("SELECT x FROM scratch").load::<i32>(&mut fixture.another());
    assert_eq!(refused(other), ("unknown", "no such table: scratch".to_owned()));
}

#[test]
fn are_filled_from_the_database_and_joined_with_it() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("CREATE TEMP TABLE scratch AS SELECT id AS x FROM users WHERE age > 29")
        .execute(conn)
        .unwrap();
    assert_eq!(xs(conn), [1, 3]);
    assert_eq!(
        sql_query("INSERT INTO scratch SELECT user_id FROM posts WHERE votes = 1").execute(conn),
        Ok(1)
    );
    let names = sql::<Text>("SELECT name FROM users JOIN scratch ON x = id ORDER BY id")
        .load::<String>(conn);
    assert_eq!(names, Ok(["Sean", "Tess", "Ada"].map(str::to_owned).to_vec()));
}

#[test]
fn hide_a_table_of_the_same_name() {
    let conn = &mut *fresh_with("CREATE TABLE scratch (x INTEGER); INSERT INTO scratch VALUES (1)");
    assert_eq!(xs(conn), [1]);
    sql_query("CREATE TEMP TABLE scratch (x INTEGER)").execute(conn).unwrap();
    assert_eq!(sql_query("INSERT INTO scratch VALUES (7)").execute(conn), Ok(1));
    assert_eq!(xs(conn), [7]);
    assert_eq!(sql_query("INSERT INTO main.scratch VALUES (2)").execute(conn), Ok(1));
    assert_eq!(sql::<BigInt>("SELECT count(*) FROM main.scratch").get_result::<i64>(conn), Ok(2));
    sql_query("DROP TABLE temp.scratch").execute(conn).unwrap();
    assert_eq!(xs(conn), [1, 2]);
    assert_eq!(sql_query("INSERT INTO scratch VALUES (3)").execute(conn), Ok(1));
    assert_eq!(xs(conn), [1, 2, 3]);
}

#[test]
fn give_the_numbers_of_the_last_write() {
    let conn = &mut *fresh_with(FULL_BLOG);
    sql_query("CREATE TEMP TABLE scratch (x INTEGER PRIMARY KEY)").execute(conn).unwrap();
    let numbers = |conn: &mut Conn| {
        sql::<(BigInt, BigInt)>("SELECT last_insert_rowid(), changes()")
            .get_result::<(i64, i64)>(conn)
            .unwrap()
    };
    sql_query("INSERT INTO users (id, name) VALUES (10, 'x')").execute(conn).unwrap();
    sql_query("INSERT INTO scratch VALUES (5), (6)").execute(conn).unwrap();
    assert_eq!(numbers(conn), (6, 2));
    sql_query("INSERT INTO users (id, name) VALUES (11, 'y')").execute(conn).unwrap();
    assert_eq!(numbers(conn), (11, 1));
    sql_query("UPDATE scratch SET x = x + 1 WHERE x = 6").execute(conn).unwrap();
    assert_eq!(numbers(conn), (11, 1));
}

#[test]
fn are_rolled_back_with_a_transaction_of_their_own() {
    let conn = &mut *fresh_with(FULL_BLOG);
    conn.batch_execute("CREATE TEMP TABLE scratch (x INTEGER)").unwrap();
    let result = conn.transaction(|conn| {
        sql_query("INSERT INTO scratch VALUES (1)").execute(conn)?;
        assert_eq!(xs(conn), [1]);
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(result, Err(diesel::result::Error::RollbackTransaction));
    assert!(xs(conn).is_empty());
}
