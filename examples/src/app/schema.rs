//! The table, for Diesel and for SQLite.

diesel::table! {
    resources (id) {
        id -> Text,
        name -> Text,
        city -> Text,
        state -> Text,
        country -> Text,
        latitude -> Double,
        longitude -> Double,
        client_key -> Nullable<Text>,
    }
}

/// The database assigns the id of a row without one, so a statement that ran twice would leave two
/// rows. For the same reason `client_key`, which clients choose, is not unique: a second
/// application is visible instead of failing.
pub(super) const DDL: &str = "
    CREATE TABLE IF NOT EXISTS resources (
        id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(8)))),
        name TEXT NOT NULL,
        city TEXT NOT NULL,
        state TEXT NOT NULL,
        country TEXT NOT NULL,
        latitude DOUBLE NOT NULL,
        longitude DOUBLE NOT NULL,
        client_key TEXT
    )";
