//! The SQL functions that the application has registered. SQLite knows what a statement does with
//! tables, but not what a function does when it is called.

use std::collections::HashSet;
use std::sync::OnceLock;

use diesel::connection::{Connection, LoadConnection};
use diesel::result::{Error, QueryResult};
use diesel::sqlite::SqliteConnection;

use super::native::MARKER_FUNCTION;
use super::query::BoundQuery;
use super::rows;
use crate::wire::Value;

/// Diesel's own function that writes: it makes a trigger
/// (<https://docs.rs/diesel_migrations/latest/diesel_migrations/#example>). Where it cannot, it
/// panics.
pub const MAKES_A_TRIGGER: &str = "diesel_manage_updated_at";

/// Functions that write although they are called in a SELECT, besides those of the application:
/// Diesel's, and FTS3's `optimize` (<https://www.sqlite.org/fts3.html#optimize>).
pub const WRITING_FUNCTIONS: [&str; 2] = [MAKES_A_TRIGGER, "optimize"];

/// The functions on a connection that may write: those that neither SQLite nor Diesel brings and
/// that are not registered as deterministic, in lower case. Empty where SQLite was built without
/// `pragma_function_list`. Blocks.
///
/// # Errors
/// What SQLite says.
pub fn application_functions(connection: &mut SqliteConnection) -> QueryResult<HashSet<String>> {
    static USUAL: OnceLock<HashSet<String>> = OnceLock::new();
    let usual = match USUAL.get() {
        Some(usual) => usual,
        None => {
            let plain = SqliteConnection::establish(":memory:");
            let mut plain = plain.map_err(|error| Error::QueryBuilderError(Box::new(error)))?;
            let usual = registered(&mut plain)?;
            USUAL.get_or_init(|| usual)
        }
    };
    let mut functions = registered(connection)?;
    functions.retain(|name| name != MARKER_FUNCTION && !usual.contains(name));
    Ok(functions)
}

/// Whether the application, or Diesel, has registered a function of this name. Blocks.
///
/// # Errors
/// What SQLite says.
pub fn has_function(connection: &mut SqliteConnection, name: &str) -> QueryResult<bool> {
    const FIND: &str =
        "SELECT 1 FROM pragma_function_list WHERE NOT builtin AND name = ? COLLATE NOCASE";
    let name = [Value::Text(name.into())];
    Ok(connection.load(BoundQuery::new(FIND, &name, false))?.next().transpose()?.is_some())
}

fn registered(connection: &mut SqliteConnection) -> QueryResult<HashSet<String>> {
    // SQLITE_DETERMINISTIC is 0x800.
    const LIST: &str = "SELECT DISTINCT lower(name) FROM pragma_function_list \
                        WHERE NOT builtin AND NOT flags & 0x800";
    let name = |row: QueryResult<_>| -> QueryResult<String> {
        match diesel::row::Row::get(&row?, 0).map(|field| rows::value(&field)) {
            Some(Value::Text(name)) => Ok(name),
            _ => Err(Error::NotFound),
        }
    };
    connection.load(BoundQuery::new(LIST, &[], false))?.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::native::Opened;
    use super::*;

    #[diesel::declare_sql_function]
    extern "SQL" {
        fn twice(number: diesel::sql_types::Integer) -> diesel::sql_types::Integer;
        fn lower(text: diesel::sql_types::Text) -> diesel::sql_types::Text;
    }

    #[test]
    fn only_what_the_application_registers_is_listed() {
        let mut opened = Opened::establish(":memory:").unwrap();
        let functions = |opened: &mut Opened| {
            let mut all: Vec<_> =
                application_functions(&mut opened.connection).unwrap().into_iter().collect();
            all.sort();
            all
        };
        assert!(functions(&mut opened).is_empty());
        twice_utils::register_nondeterministic_impl(&mut opened.connection, |number: i32| {
            2 * number
        })
        .unwrap();
        lower_utils::register_nondeterministic_impl(&mut opened.connection, |text: String| text)
            .unwrap();
        assert_eq!(
            functions(&mut opened),
            ["lower", "twice"],
            "also one that hides one of SQLite's"
        );
    }
}
