//! Inserts many rows in one request and returns them.

mod split;

use diesel::deserialize::FromSqlRow;
use diesel::dsl::AsExprOf;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{
    AsQuery, BatchInsert, InsertStatement, QueryFragment, ReturningClause, ValuesClause,
};
use diesel::query_dsl::CompatibleType;
use diesel::query_dsl::methods::{ExecuteDsl, FilterDsl};
use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use diesel::sqlite::Sqlite;
use diesel::{QuerySource, Table};
use litefs_rpc::wire::{Output, Repeated};

use crate::connection::{LiteFsConnection, Recorder, WithClause, unexpected};

/// Inserts many rows at the cost of one.
///
/// On SQLite Diesel inserts a `Vec` of rows with optional columns row by row inside a transaction,
/// because SQLite has no DEFAULT keyword; through a connection to another node that would be a
/// round trip for each row. These calls send all rows in one request and apply all or none. Without
/// optional columns, `execute` makes one statement of the rows and needs no help.
///
/// They also return the rows of a batch: Diesel implements RETURNING for batch inserts on its own
/// SQLite connection only. Without `returning`, all columns are returned.
///
/// Batches with `on_conflict` work the same way. A row that `do_nothing` leaves alone is not
/// returned. If the rows have optional columns, Diesel gives no access to them behind
/// `on_conflict`: add the clause to each row with `map_rows`.
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
/// fn note(text: &str, stars: Option<i32>) -> Note {
///     Note { text: text.into(), stars }
/// }
///
/// let mut conn = LiteFsConnection::establish(":memory:")?;
/// diesel::sql_query(
///     "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL, stars INTEGER DEFAULT 3)",
/// )
/// .execute(&mut conn)?;
/// let rows = vec![note("one", None), note("two", Some(5))];
/// let back: Vec<(i32, Option<i32>)> = diesel::insert_into(notes::table)
///     .values(rows)
///     .returning((notes::id, notes::stars))
///     .get_results_at_once(&mut conn)?;
/// assert_eq!(back, [(1, Some(3)), (2, Some(5))]);
///
/// let stars = diesel::upsert::excluded(notes::stars);
/// let rows = vec![(notes::id.eq(2), notes::text.eq("two"), notes::stars.eq(4))];
/// let changed = diesel::insert_into(notes::table)
///     .values(rows)
///     .on_conflict(notes::id)
///     .do_update()
///     .set(notes::stars.eq(stars))
///     .execute_at_once(&mut conn)?;
/// assert_eq!(changed, 1);
/// let rows = vec![note("two", None), note("three", Some(1))];
/// let all: Vec<(i32, String, Option<i32>)> = diesel::insert_into(notes::table)
///     .values(rows)
///     .map_rows(|row| row.on_conflict_do_nothing())
///     .get_results_at_once(&mut conn)?;
/// assert_eq!(all, [(3, "two".into(), Some(3)), (4, "three".into(), Some(1))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BatchInsertDsl<Kind = Rows>: Sized {
    /// Inserts the rows, all or none. Returns how many rows were inserted or updated.
    ///
    /// # Errors
    /// What the first failing row gives. Nothing is inserted then.
    fn execute_at_once(self, conn: &mut LiteFsConnection) -> QueryResult<usize>
    where
        Self: IntoStatements<Kind>,
    {
        let statements = self.into_statements(conn)?;
        match conn.run_batch(statements, false)? {
            Output::Counts(counts) => {
                Ok(usize::try_from(counts.iter().sum::<u64>()).unwrap_or(usize::MAX))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Inserts the rows, all or none. Returns what RETURNING asks for, all columns without it, in
    /// the order of the rows.
    ///
    /// # Errors
    /// What the first failing row gives, or the first that cannot be deserialized (the rows are
    /// inserted then).
    fn get_results_at_once<U>(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<U>>
    where
        Self: IntoStatements<Kind>,
        Self::SqlType: CompatibleType<U, Sqlite>,
        Sqlite: QueryMetadata<Self::SqlType>,
        U: FromSqlRow<<Self::SqlType as CompatibleType<U, Sqlite>>::SqlType, Sqlite>,
    {
        let statements = self.into_returning_statements(conn)?;
        let rows = match conn.run_batch(statements, true)? {
            Output::Rows(rows) => rows,
            other => return Err(unexpected(&other)),
        };
        conn.read_rows(rows)
    }

    /// Makes a statement of each row: `map` gets the insert of one row and may add `on_conflict` to
    /// it, which Diesel allows for single rows with optional columns only.
    fn map_rows<Q>(self, map: impl FnMut(Self::Row) -> Q) -> MappedRows<Q>
    where
        Self: IntoRows,
    {
        MappedRows(self.into_rows().map(map).collect())
    }
}

impl<T: IntoStatements<Kind>, Kind> BatchInsertDsl<Kind> for T {}

/// The kind of a batch without `on_conflict`. The compiler infers it.
#[derive(Debug, Clone, Copy)]
pub enum Rows {}

/// The kind of a batch with `on_conflict`. The compiler infers it.
#[derive(Debug, Clone, Copy)]
pub enum Upserts {}

/// A batch insert as statements, those with the same text together. Sealed by Diesel's types:
/// implemented for its inserts of a `Vec` of rows, with and without `on_conflict` and `returning`,
/// and for [`MappedRows`].
pub trait IntoStatements<Kind = Rows> {
    /// The type of the rows that come back.
    type SqlType;

    /// The statements as they are.
    ///
    /// # Errors
    /// When a value cannot be serialized.
    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>>;

    /// One statement for each row, all columns returned where nothing else is asked for.
    ///
    /// # Errors
    /// When a value cannot be serialized.
    fn into_returning_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>>;
}

/// A batch insert that can be split into its rows.
pub trait IntoRows {
    /// The insert of one row.
    type Row;

    /// The inserts, in the order of the rows.
    fn into_rows(self) -> impl Iterator<Item = Self::Row>;
}

impl<T, V, QId, Op, Ret, const STATIC: bool> IntoRows
    for InsertStatement<T, BatchInsert<Vec<ValuesClause<V, T>>, T, QId, STATIC>, Op, Ret>
where
    T: QuerySource + Copy,
    Op: Copy,
    Ret: Copy,
{
    type Row = InsertStatement<T, ValuesClause<V, T>, Op, Ret>;

    fn into_rows(self) -> impl Iterator<Item = Self::Row> {
        let (target, operator, returning) = (self.target, self.operator, self.returning);
        let rows = self.records.values.into_iter();
        rows.map(move |row| InsertStatement::new(target, row, operator, returning))
    }
}

/// The statements that [`map_rows`](BatchInsertDsl::map_rows) has made.
#[derive(Debug, Clone)]
pub struct MappedRows<Q>(Vec<Q>);

impl<Q> IntoStatements for MappedRows<Q>
where
    Q: QueryFragment<Sqlite> + AsQuery,
    Q::Query: QueryFragment<Sqlite>,
{
    type SqlType = Q::SqlType;

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        conn.capture_rows(&self.0)
    }

    fn into_returning_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        conn.capture_rows(&self.0.into_iter().map(AsQuery::as_query).collect::<Vec<_>>())
    }
}

impl<T, V, QId, Op, Ret, const STATIC: bool> IntoStatements
    for InsertStatement<T, BatchInsert<Vec<ValuesClause<V, T>>, T, QId, STATIC>, Op, Ret>
where
    T: QuerySource,
    Self: IntoRows,
    MappedRows<<Self as IntoRows>::Row>: IntoStatements,
{
    type SqlType = <MappedRows<<Self as IntoRows>::Row> as IntoStatements>::SqlType;

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        MappedRows(self.into_rows().collect()).into_statements(conn)
    }

    fn into_returning_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        MappedRows(self.into_rows().collect()).into_returning_statements(conn)
    }
}

/// Distinguishes the two kinds: only an insert with `on_conflict` can be filtered.
type Condition = AsExprOf<bool, Bool>;

impl<T, U, Op> IntoStatements<Upserts> for InsertStatement<T, U, Op>
where
    T: Table,
    Self: FilterDsl<Condition> + ExecuteDsl<Recorder, Sqlite> + AsQuery,
    ReturningClause<T::AllColumns>: QueryFragment<Sqlite>,
{
    type SqlType = <Self as AsQuery>::SqlType;

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        conn.capture_rows(&Recorder::record(self)?)
    }

    fn into_returning_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        returning(self, &ReturningClause(T::all_columns()), conn)
    }
}

impl<T, U, Op, Ret> IntoStatements<Upserts> for InsertStatement<T, U, Op, ReturningClause<Ret>>
where
    T: Table + Copy,
    Self: FilterDsl<Condition> + AsQuery,
    InsertStatement<T, U, Op>: ExecuteDsl<Recorder, Sqlite>,
    ReturningClause<Ret>: QueryFragment<Sqlite>,
{
    type SqlType = <Self as AsQuery>::SqlType;

    fn into_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        self.into_returning_statements(conn)
    }

    fn into_returning_statements(self, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>> {
        // Diesel exports no value of the clause that returns nothing.
        let nothing = diesel::insert_into(self.target).default_values().returning;
        let insert = InsertStatement::new(self.target, self.records, self.operator, nothing);
        returning(insert, &self.returning, conn)
    }
}

/// The statements of an insert with a RETURNING clause, one for each row: SQLite does not promise
/// in which order it returns the rows of one.
fn returning<Q, C>(insert: Q, clause: &C, conn: &mut LiteFsConnection) -> QueryResult<Vec<Repeated>>
where
    Q: ExecuteDsl<Recorder, Sqlite>,
    C: QueryFragment<Sqlite>,
{
    let recorded = Recorder::record(insert)?.into_iter();
    let statements: Vec<_> = recorded.map(|statement| WithClause { statement, clause }).collect();
    Ok(conn.capture_rows(&statements)?.into_iter().flat_map(split::row_by_row).collect())
}
