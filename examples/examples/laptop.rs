//! The same program without LiteFS: everything is local, with no conditional code.
//!
//! `cargo run -p litefs-examples --example laptop`

use diesel::prelude::*;
use libsqlite3_sys as _;
use litefs_diesel::{LiteFs, LiteFsConnection};

diesel::table! {
    /// Notes.
    notes (id) {
        /// Number.
        id -> Integer,
        /// The text.
        text -> Text,
    }
}

type Problem = Box<dyn std::error::Error>;

/// The start-up of an application, on a laptop and in production alike.
fn start(database: &str) -> Result<(LiteFs, LiteFsConnection), Problem> {
    let litefs = LiteFs::start(database)?;
    let mut conn = litefs.establish()?;
    diesel::sql_query(
        "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    )
    .execute(&mut conn)?;
    Ok((litefs, conn))
}

fn main() -> Result<(), Problem> {
    let dir = tempfile::tempdir()?;
    let database = dir.path().join("app.db");
    let (litefs, mut conn) = start(database.to_str().ok_or("a directory that is not UTF-8")?)?;

    let id: i32 = diesel::insert_into(notes::table)
        .values(notes::text.eq("written on a laptop"))
        .returning(notes::id)
        .get_result(&mut conn)?;
    let text: String = notes::table.find(id).select(notes::text).get_result(&mut conn)?;
    conn.transaction(|conn| {
        diesel::update(notes::table).set(notes::text.eq("changed")).execute(conn)
    })?;

    assert_eq!(text, "written on a laptop");
    assert_eq!(litefs.round_trips(), 0);
    println!(
        "role {}: note {id} says {text:?}; {} round trips",
        litefs.role(),
        litefs.round_trips()
    );
    Ok(())
}
