//! The tables and the transactions of these benches.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use litefs_diesel::LiteFsConnection;
use litefs_examples::Problem;

use crate::bench::items;

diesel::table! {
    accounts (id) {
        id -> Integer,
        balance -> Integer,
    }
}
diesel::table! {
    /// Rows that the primary changes.
    counters (id) {
        id -> Integer,
        value -> BigInt,
    }
}

/// The number of accounts. No two callers use the same.
pub(super) const ACCOUNTS: i32 = 512;
/// The counter that only writers of the primary change.
pub(super) const UNRELATED: i32 = 1;
/// The counter that transactions change as well.
pub(super) const SHARED: i32 = 2;

/// A transaction without its BEGIN and COMMIT. `number` chooses its rows.
pub(super) type Work = fn(&mut LiteFsConnection, i32) -> QueryResult<()>;

/// How a transaction is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `transaction`: on the replica's snapshot.
    Plain,
    /// `immediate_transaction`: in a session on the primary.
    Session,
}

impl Form {
    /// Runs a transaction.
    pub(super) fn run(
        self,
        conn: &mut LiteFsConnection,
        number: i32,
        work: Work,
    ) -> QueryResult<()> {
        match self {
            Self::Plain => conn.transaction(|conn| work(conn, number)),
            Self::Session => conn.immediate_transaction(|conn| work(conn, number)),
        }
    }
}

/// Creates the tables.
pub(super) fn create(conn: &mut LiteFsConnection) -> Result<(), Problem> {
    let rows = format!(
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS} - 1)
         INSERT INTO accounts SELECT i, 1000000 FROM n;
         INSERT INTO counters VALUES ({UNRELATED}, 0), ({SHARED}, 0);
         {}",
        items::DDL
    );
    Ok(conn.batch_execute(&rows)?)
}

/// One read and two updates.
pub(super) fn short(conn: &mut LiteFsConnection, number: i32) -> QueryResult<()> {
    let (from, to) = two_accounts(number);
    balance(conn, from)?;
    add(conn, from, -1)?;
    add(conn, to, 1)
}

/// Two reads and five writes.
pub(super) fn long(conn: &mut LiteFsConnection, number: i32) -> QueryResult<()> {
    let (from, to) = two_accounts(number);
    balance(conn, from)?;
    balance(conn, to)?;
    add(conn, from, -2)?;
    add(conn, to, 1)?;
    add(conn, to, 1)?;
    for name in ["from", "to"] {
        items::insert(conn, name, items::PAYLOAD)?;
    }
    Ok(())
}

fn two_accounts(number: i32) -> (i32, i32) {
    let from = 2 * number % ACCOUNTS;
    (from, from + 1)
}

fn balance(conn: &mut LiteFsConnection, id: i32) -> QueryResult<i32> {
    accounts::table.find(id).select(accounts::balance).first(conn)
}

fn add(conn: &mut LiteFsConnection, id: i32, amount: i32) -> QueryResult<()> {
    one_row(
        diesel::update(accounts::table.find(id))
            .set(accounts::balance.eq(accounts::balance + amount))
            .execute(conn)?,
    )
}

/// Reads a counter.
pub(super) fn count(conn: &mut LiteFsConnection, id: i32) -> QueryResult<i64> {
    counters::table.find(id).select(counters::value).first(conn)
}

/// Adds one to a counter, in one statement.
pub(super) fn increment(conn: &mut LiteFsConnection, id: i32) -> QueryResult<()> {
    one_row(
        diesel::update(counters::table.find(id))
            .set(counters::value.eq(counters::value + 1))
            .execute(conn)?,
    )
}

/// Sets a counter to what was calculated from a read.
pub(super) fn set(conn: &mut LiteFsConnection, id: i32, value: i64) -> QueryResult<()> {
    one_row(diesel::update(counters::table.find(id)).set(counters::value.eq(value)).execute(conn)?)
}

fn one_row(changed: usize) -> QueryResult<()> {
    if changed == 1 { Ok(()) } else { Err(diesel::result::Error::NotFound) }
}
