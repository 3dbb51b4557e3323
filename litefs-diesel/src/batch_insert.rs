use diesel::QuerySource;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{
    BatchInsert, InsertStatement, Query, QueryFragment, ReturningClause, ValuesClause,
};
use diesel::query_dsl::CompatibleType;
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::wire::{Answer, Repeated};

use crate::LiteFsConnection;
use crate::connection::unexpected;

/// Inserts many rows at the cost of one.
///
/// On SQLite Diesel inserts a `Vec` of rows with optional columns row by row inside a transaction, because SQLite has
/// no DEFAULT keyword; through a connection to another node that would be a round trip for each row. These calls send
/// all rows in one request and apply all or none. Without optional columns, `execute` makes one statement of the rows
/// and needs no help.
///
/// They are also the way to get the rows of a batch back: Diesel implements RETURNING for batch inserts on its own
/// SQLite connection only.
///
/// ```
/// use diesel::prelude::*;
/// use litefs_diesel::{BatchInsertDsl, LiteFsConnection};
///
/// diesel::table! { notes { id -> Integer, text -> Text, stars -> Nullable<Integer>, } }
///
/// #[derive(Insertable)]
/// #[diesel(table_name = notes)]
/// struct Note { text: String, stars: Option<i32> }
///
/// let mut conn = LiteFsConnection::establish(":memory:")?;
/// diesel::sql_query("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, stars INTEGER DEFAULT 3)")
///     .execute(&mut conn)?;
/// let rows = vec![Note { text: "one".into(), stars: None }, Note { text: "two".into(), stars: Some(5) }];
/// let back: Vec<(i32, Option<i32>)> = diesel::insert_into(notes::table)
///     .values(rows)
///     .returning((notes::id, notes::stars))
///     .get_results_at_once(&mut conn)?;
/// assert_eq!(back, [(1, Some(3)), (2, Some(5))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BatchInsertDsl: Sized {
    /// Inserts the rows, all or none. Returns their number.
    ///
    /// # Errors
    /// What the first failing row gives. Nothing is inserted then.
    fn execute_at_once(self, conn: &mut LiteFsConnection) -> QueryResult<usize>
    where
        Self: IntoStatements,
    {
        let statements = self.into_statements(conn)?;
        match conn.run_batch(statements, false)? {
            Answer::Counts(counts) => Ok(usize::try_from(counts.iter().sum::<u64>()).unwrap_or(usize::MAX)),
            other => Err(unexpected(&other)),
        }
    }

    /// Inserts the rows, all or none. Returns what RETURNING asks for, in the order of the rows.
    ///
    /// # Errors
    /// What the first failing row gives, or the first that cannot be deserialized (the rows are inserted then).
    fn get_results_at_once<U>(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<U>>
    where
        Self: IntoStatements,
        Self::SqlType: CompatibleType<U, Sqlite>,
        Sqlite: QueryMetadata<Self::SqlType>,
        U: FromSqlRow<<Self::SqlType as CompatibleType<U, Sqlite>>::SqlType, Sqlite>,
    {
        let statements = self.into_statements(conn)?;
        let rows = match conn.run_batch(statements, true)? {
            Answer::Rows(rows) => rows,
            other => return Err(unexpected(&other)),
        };
        conn.read_rows(rows)
    }
}

/// A batch insert as one statement for each of its rows, those with the same columns together. Sealed by Diesel's types:
/// implemented for its inserts of a `Vec` of rows.
pub trait IntoStatements {
    /// The type of the rows that come back.
    type SqlType;

    /// One statement for each row; rows with one text after another share it.
    ///
    /// # Errors
    /// When a value cannot be serialized.
    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>>;
}

impl<T, V, QId, Op, const STATIC: bool> IntoStatements
    for InsertStatement<T, BatchInsert<Vec<ValuesClause<V, T>>, T, QId, STATIC>, Op>
where
    T: QuerySource + Copy,
    Op: Copy,
    InsertStatement<T, ValuesClause<V, T>, Op>: QueryFragment<Sqlite>,
{
    type SqlType = ();

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        let (target, operator, returning) = (self.target, self.operator, self.returning);
        let rows = self.records.values.into_iter();
        let inserts: Vec<_> =
            rows.map(|row| InsertStatement::new(target, row, operator, returning)).collect();
        conn.capture_rows(&inserts)
    }
}

impl<T, V, QId, Op, Ret, const STATIC: bool> IntoStatements
    for InsertStatement<T, BatchInsert<Vec<ValuesClause<V, T>>, T, QId, STATIC>, Op, ReturningClause<Ret>>
where
    T: QuerySource + Copy,
    Op: Copy,
    ReturningClause<Ret>: Copy,
    InsertStatement<T, ValuesClause<V, T>, Op, ReturningClause<Ret>>: QueryFragment<Sqlite> + Query,
{
    type SqlType = <InsertStatement<T, ValuesClause<V, T>, Op, ReturningClause<Ret>> as Query>::SqlType;

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        let (target, operator, returning) = (self.target, self.operator, self.returning);
        let rows = self.records.values.into_iter();
        let inserts: Vec<_> =
            rows.map(|row| InsertStatement::new(target, row, operator, returning)).collect();
        conn.capture_rows(&inserts)
    }
}

impl<T: IntoStatements> BatchInsertDsl for T {}
