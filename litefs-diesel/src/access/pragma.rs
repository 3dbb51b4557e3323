//! The table of PRAGMAs: what each does to the database.

use litefs_rpc::sqlite::sql::Pragma;

use super::class::{Access, Class};

/// The class of a PRAGMA. SQLite runs some PRAGMAs while it prepares them, so it is not asked.
pub(super) fn of_pragma(pragma: &Pragma<'_>) -> Class {
    match of_pragma_of_main(pragma) {
        // SQLite ignores the schema of a PRAGMA that sets the session.
        class if class.sets_session || !is_elsewhere(pragma.schema) => class,
        class if class.access == Access::Write => Class::LOCAL_WRITE,
        _ => Class::new(Access::Local),
    }
}

/// The class of a PRAGMA of the main database, by its name.
fn of_pragma_of_main(pragma: &Pragma<'_>) -> Class {
    let name = pragma.name.to_ascii_lowercase();
    match (name.as_str(), pragma.value) {
        (
            "user_version" | "application_id" | "schema_version" | "auto_vacuum" | "encoding"
            | "default_cache_size",
            Some(_),
        )
        | ("incremental_vacuum" | "optimize", _) => Class::new(Access::Write),
        (
            "foreign_keys"
            | "defer_foreign_keys"
            | "recursive_triggers"
            | "ignore_check_constraints"
            | "legacy_alter_table",
            Some(_),
        ) => Class { sets_session: true, ..Class::new(Access::Local) },
        (
            "user_version" | "application_id" | "schema_version" | "auto_vacuum" | "encoding"
            | "integrity_check" | "quick_check" | "foreign_key_check" | "foreign_key_list"
            | "index_info" | "index_list" | "index_xinfo" | "table_info" | "table_xinfo"
            | "table_list" | "page_count" | "freelist_count",
            _,
        ) => Class::new(Access::Read),
        _ => Class::new(Access::Local),
    }
}

/// Whether a schema is that of a temporary or attached database.
pub(super) fn is_elsewhere(schema: Option<&str>) -> bool {
    schema.is_some_and(|schema| !schema.eq_ignore_ascii_case("main"))
}

#[cfg(test)]
mod tests {
    use litefs_rpc::sqlite::sql::statements;

    use super::super::classify::classify;
    use super::*;

    fn of(sql: &str) -> Class {
        classify(&statements(sql)[0], None)
    }

    #[test]
    fn m12_pragmas_are_classified_by_name() {
        assert_eq!(of("PRAGMA user_version = 3").access, Access::Write);
        assert_eq!(of("PRAGMA user_version").access, Access::Read);
        assert_eq!(of("PRAGMA busy_timeout = 3").access, Access::Local);
        assert!(of("PRAGMA foreign_keys = ON").sets_session);
        assert!(of("PRAGMA other.foreign_keys = ON").sets_session);
        assert_eq!(of("PRAGMA other.user_version = 3"), Class::LOCAL_WRITE);
        assert_eq!(of("PRAGMA temp.user_version"), Class::new(Access::Local));
        assert_eq!(of("PRAGMA \"main\".user_version = 3").access, Access::Write);
        assert!(!of("PRAGMA foreign_keys").sets_session);
        assert!(of("PRAGMA journal_mode = DELETE").refused);
    }
}
