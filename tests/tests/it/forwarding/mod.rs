//! Forwarding from a replica: scenarios M1 to M16 of the acceptance list.

mod batches;
mod errors;
mod role_changes;
mod routing;
mod session;
mod statements;
mod values;

use diesel::prelude::*;
use diesel::result::Error;
use litefs_tests::TestCluster;

diesel::table! { items { id -> Integer, name -> Text, price -> Nullable<Double>, } }
diesel::table! {
    everything {
        id -> Integer,
        i -> Nullable<BigInt>,
        d -> Nullable<Double>,
        t -> Nullable<Text>,
        b -> Nullable<Binary>,
    }
}

diesel::define_sql_function! { fn last_insert_rowid() -> BigInt; }
diesel::define_sql_function! { fn changes() -> BigInt; }

const SCHEMA: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        price DOUBLE CHECK (price >= 0));
    CREATE TABLE parts (id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES items (id));
    CREATE TABLE everything (id INTEGER PRIMARY KEY, i BIGINT, d DOUBLE, t TEXT, b BLOB)";

fn test_cluster() -> TestCluster {
    let test = TestCluster::start(&["a", "b"]);
    test.schema(SCHEMA);
    test
}

fn names(
    conn: &mut impl diesel::connection::LoadConnection<Backend = diesel::sqlite::Sqlite>,
) -> Vec<String> {
    items::table.order(items::id).select(items::name).load(conn).unwrap()
}

/// The error of a statement, as a comparable value.
fn failure(
    conn: &mut impl Connection<Backend = diesel::sqlite::Sqlite>,
    sql: &str,
) -> (String, String) {
    match diesel::sql_query(sql).execute(conn).unwrap_err() {
        Error::DatabaseError(kind, information) => {
            (format!("{kind:?}"), information.message().to_owned())
        }
        other => (String::new(), format!("{other:?}")),
    }
}
