//! Several connections, pools, and settings of the connection.

use diesel::connection::{AnsiTransactionManager, CacheSize, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;
use diesel::result::Error;

use super::{Conn, fresh_with};
use crate::schema::{BLOG, FULL_BLOG, User, everybody, users};

fn add(conn: &mut Conn, name: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(users::name.eq(name)).execute(conn)
}

fn names(conn: &mut Conn) -> Vec<String> {
    users::table.order(users::id).select(users::name).load(conn).unwrap()
}

#[test]
fn writes_of_one_connection_are_read_by_another() {
    let fixture = fresh_with(BLOG);
    let (one, other) = (&mut fixture.another(), &mut fixture.another());
    for round in 0..10 {
        let (writer, reader) =
            if round % 2 == 0 { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
        add(writer, &round.to_string()).unwrap();
        assert_eq!(names(reader).len(), round + 1);
    }
}

#[test]
fn a_pool_hands_out_connections_that_work() {
    let fixture = fresh_with(FULL_BLOG);
    let pool = fixture.pool(2);
    {
        let (mut one, mut other) = (pool.get().unwrap(), pool.get().unwrap());
        add(&mut one, "New").unwrap();
        assert_eq!(names(&mut other), ["Sean", "Tess", "Ada", "New"]);
    }
    pool.get().unwrap().transaction(|conn| add(conn, "Newer")).unwrap();
    assert_eq!(names(&mut pool.get().unwrap()).len(), 5);
    assert_eq!(pool.state().connections, 2);
}

#[test]
fn a_pooled_connection_is_a_connection() {
    let fixture = fresh_with(FULL_BLOG);
    let mut pooled = fixture.pool(1).get().unwrap();
    let id: i32 = diesel::insert_into(users::table)
        .values(users::name.eq("New"))
        .returning(users::id)
        .get_result(&mut pooled)
        .unwrap();
    assert_eq!(id, 4);
    let result = pooled.transaction(|conn| {
        diesel::delete(users::table.find(4)).execute(conn)?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(result, Err(Error::RollbackTransaction));
    assert_eq!(users::table.count().get_result::<i64>(&mut pooled), Ok(4));
}

#[test]
fn threads_share_a_pool() {
    let fixture = fresh_with(BLOG);
    // One writer at a time: no connection waits for a lock.
    let pool = fixture.pool(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for i in 0..5 {
                    add(&mut pool.get().unwrap(), &format!("{thread} {i}")).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&mut pool.get().unwrap()).len(), 20);
}

#[test]
fn a_connection_is_sent_to_another_thread() {
    let fixture = fresh_with(FULL_BLOG);
    let mut conn = fixture.another();
    let (conn, added) = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let added = add(&mut conn, "New");
                (conn, added)
            })
            .join()
            .unwrap()
    });
    assert_eq!(added, Ok(1));
    let mut conn = conn;
    assert_eq!(names(&mut conn).len(), 4);
}

#[test]
fn ping_and_is_broken() {
    let conn = &mut *fresh_with(FULL_BLOG);
    assert_eq!(conn.ping(), Ok(()));
    assert!(!conn.is_broken());
    add(conn, "Sean").unwrap_err();
    assert!(!conn.is_broken());
    // A connection with an open transaction is not returned to a pool.
    AnsiTransactionManager::begin_transaction(conn).unwrap();
    assert!(conn.is_broken());
    AnsiTransactionManager::rollback_transaction(conn).unwrap();
    assert!(!conn.is_broken());
    // A test transaction is meant to stay open.
    conn.begin_test_transaction().unwrap();
    assert!(!conn.is_broken());
}

#[test]
fn queries_work_without_a_cache_of_prepared_statements() {
    let conn = &mut *fresh_with(BLOG);
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    for i in 0..5_i64 {
        add(conn, &i.to_string()).unwrap();
        assert_eq!(users::table.count().get_result::<i64>(conn), Ok(i + 1));
    }
    conn.set_prepared_statement_cache_size(CacheSize::Unbounded);
    for i in 5..10_i64 {
        add(conn, &i.to_string()).unwrap();
        assert_eq!(users::table.count().get_result::<i64>(conn), Ok(i + 1));
    }
}

#[test]
fn dropping_a_connection_rolls_its_transaction_back() {
    let fixture = fresh_with(FULL_BLOG);
    {
        let conn = &mut fixture.another();
        conn.batch_execute("BEGIN").unwrap();
        add(conn, "New").unwrap();
    }
    let conn = &mut fixture.another();
    // As on plain SQLite, no lock is left.
    conn.transaction(|conn| add(conn, "Newer")).unwrap();
    assert_eq!(names(conn), ["Sean", "Tess", "Ada", "Newer"]);
}

#[test]
fn a_panic_in_a_transaction_leaves_nothing_behind() {
    let fixture = fresh_with(FULL_BLOG);
    let mut conn = fixture.another();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        conn.transaction(|conn| -> QueryResult<()> {
            add(conn, "New")?;
            std::panic::resume_unwind(Box::new("on purpose"))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(users::table.load::<User>(&mut fixture.another()), Ok(everybody()));
}
