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

/// The functions on a connection that neither SQLite nor Diesel brings, in lower case: what they do
/// is for the application to know. Empty where SQLite was built without `pragma_function_list`.
/// Blocks.
#[must_use]
pub fn application_functions(connection: &mut SqliteConnection) -> HashSet<String> {
    static USUAL: OnceLock<HashSet<String>> = OnceLock::new();
    let usual = USUAL.get_or_init(|| {
        let plain = SqliteConnection::establish(":memory:");
        plain.ok().and_then(|mut plain| registered(&mut plain).ok()).unwrap_or_default()
    });
    let mut functions = registered(connection).unwrap_or_default();
    functions.retain(|name| name != MARKER_FUNCTION && !usual.contains(name));
    functions
}

fn registered(connection: &mut SqliteConnection) -> QueryResult<HashSet<String>> {
    const LIST: &str = "SELECT DISTINCT lower(name) FROM pragma_function_list WHERE NOT builtin";
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
            let mut all: Vec<_> = application_functions(&mut opened.connection).into_iter().collect();
            all.sort();
            all
        };
        assert!(functions(&mut opened).is_empty());
        twice_utils::register_impl(&mut opened.connection, |number: i32| 2 * number).unwrap();
        lower_utils::register_impl(&mut opened.connection, |text: String| text).unwrap();
        assert_eq!(functions(&mut opened), ["lower", "twice"], "also one that hides one of SQLite's");
    }
}
