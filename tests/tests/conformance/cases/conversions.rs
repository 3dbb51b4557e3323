//! Conversions between types: rows of several types, affinities, NULL, and custom types.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Double, Float, Integer, Nullable, SmallInt, Text};

use super::{fresh, fresh_with};
use crate::schema::{VALUES, everything};

#[test]
fn a_row_with_a_value_of_every_type_is_returned_whole() {
    let conn = &mut *fresh_with(VALUES);
    type Row = (
        i32,
        Option<i16>,
        Option<i32>,
        Option<i64>,
        Option<f32>,
        Option<f64>,
        Option<String>,
        Option<Vec<u8>>,
    );
    let row: Row = diesel::insert_into(everything::table)
        .values((
            everything::small.eq(-5),
            everything::int.eq(6),
            everything::big.eq(i64::MIN),
            everything::float.eq(1.5),
            everything::double.eq(1e300),
            everything::text.eq("x"),
            everything::blob.eq(vec![1, 2]),
        ))
        .returning((
            everything::id,
            everything::small,
            everything::int,
            everything::big,
            everything::float,
            everything::double,
            everything::text,
            everything::blob,
        ))
        .get_result(conn)
        .unwrap();
    let expected: Row = (
        1,
        Some(-5),
        Some(6),
        Some(i64::MIN),
        Some(1.5),
        Some(1e300),
        Some("x".into()),
        Some(vec![1, 2]),
    );
    assert_eq!(row, expected);
}

#[test]
fn values_pass_through_a_select_without_a_table() {
    let conn = &mut *fresh();
    let row: (i16, i32, i64, f32, f64, String, Vec<u8>, bool) = diesel::select((
        i16::MIN.into_sql::<SmallInt>(),
        i32::MIN.into_sql::<Integer>(),
        i64::MIN.into_sql::<BigInt>(),
        f32::MAX.into_sql::<Float>(),
        f64::NEG_INFINITY.into_sql::<Double>(),
        "a\0b".into_sql::<Text>(),
        vec![0_u8, 255].into_sql::<Binary>(),
        true.into_sql::<Bool>(),
    ))
    .get_result(conn)
    .unwrap();
    let expected = (
        i16::MIN,
        i32::MIN,
        i64::MIN,
        f32::MAX,
        f64::NEG_INFINITY,
        "a\0b".to_owned(),
        vec![0, 255],
        true,
    );
    assert_eq!(row, expected);
}

/// Diesel reads 32 bits, and SQLite returns the lower ones.
#[test]
fn an_integer_that_is_too_large_is_cut_when_it_is_read() {
    let conn = &mut *fresh_with(VALUES);
    let returned: Option<i32> = diesel::dsl::sql::<Nullable<Integer>>(
        "INSERT INTO everything (int) VALUES (4294967301) RETURNING int",
    )
    .get_result(conn)
    .unwrap();
    assert_eq!(returned, Some(5));
    let read: Option<i16> =
        diesel::dsl::sql::<Nullable<SmallInt>>("SELECT int FROM everything WHERE id = 1")
            .get_result(conn)
            .unwrap();
    assert_eq!(read, Some(5));
}

#[test]
fn returned_values_are_converted_as_selected_ones_are() {
    let conn = &mut *fresh_with(VALUES);
    let sql =
        "INSERT INTO everything (int, text) VALUES (12, '34abc') RETURNING int, text, text, int";
    let row: (String, i32, f64, f64) =
        diesel::dsl::sql::<(Text, Integer, Double, Double)>(sql).get_result(conn).unwrap();
    assert_eq!(row, ("12".to_owned(), 34, 34.0, 12.0));
    let row: (String, i32, f64, f64) = diesel::dsl::sql::<(Text, Integer, Double, Double)>(
        "SELECT int, text, text, int FROM everything WHERE id = 1",
    )
    .get_result(conn)
    .unwrap();
    assert_eq!(row, ("12".to_owned(), 34, 34.0, 12.0));
}

#[test]
fn null_where_a_value_is_expected_is_a_deserialization_error() {
    let conn = &mut *fresh_with(VALUES);
    let read = diesel::dsl::sql::<Integer>("SELECT int FROM everything")
        .get_result::<i32>(conn)
        .unwrap_err();
    assert_eq!(read.to_string(), "Unexpected null for non-null column");
    let returned = diesel::dsl::sql::<Integer>("UPDATE everything SET int = NULL RETURNING int")
        .get_result::<i32>(conn)
        .unwrap_err();
    assert_eq!(returned.to_string(), read.to_string());
    assert!(matches!(returned, diesel::result::Error::DeserializationError(_)), "{returned:?}");
}

#[test]
fn untyped_columns_keep_the_type_of_a_value() {
    let conn = &mut *fresh_with("CREATE TABLE bag (id INTEGER PRIMARY KEY, x)");
    diesel::sql_query("INSERT INTO bag (x) VALUES (?), (?), (?), (?), (?)")
        .bind::<BigInt, _>(1)
        .bind::<Double, _>(1.0)
        .bind::<Text, _>("1")
        .bind::<Binary, _>(b"1".as_slice())
        .bind::<Nullable<Integer>, _>(None::<i32>)
        .execute(conn)
        .unwrap();
    let types: Vec<String> =
        diesel::dsl::sql::<Text>("SELECT typeof(x) FROM bag ORDER BY id").load(conn).unwrap();
    assert_eq!(types, ["integer", "real", "text", "blob", "null"]);
}

#[test]
fn affinities_convert_values() {
    let conn = &mut *fresh_with("CREATE TABLE t (i INTEGER, r REAL, s TEXT, n NUMERIC)");
    diesel::sql_query("INSERT INTO t VALUES (?1, ?1, ?1, ?1)")
        .bind::<Text, _>("1.0")
        .execute(conn)
        .unwrap();
    diesel::sql_query("INSERT INTO t VALUES (?1, ?1, ?1, ?1)")
        .bind::<Double, _>(1.5)
        .execute(conn)
        .unwrap();
    let types: Vec<(String, String, String, String)> =
        diesel::dsl::sql::<(Text, Text, Text, Text)>(
            "SELECT typeof(i), typeof(r), typeof(s), typeof(n) FROM t ORDER BY rowid",
        )
        .load(conn)
        .unwrap();
    let row =
        |types: [&str; 4]| (types[0].into(), types[1].into(), types[2].into(), types[3].into());
    assert_eq!(
        types,
        [row(["integer", "real", "text", "integer"]), row(["real", "real", "text", "real"])]
    );
}

#[test]
fn a_type_of_the_users_own() {
    use diesel::backend::Backend;
    use diesel::deserialize::{self, FromSql, FromSqlRow};
    use diesel::expression::AsExpression;
    use diesel::serialize::{self, Output, ToSql};
    use diesel::sqlite::Sqlite;

    #[derive(Debug, Clone, Copy, PartialEq, AsExpression, FromSqlRow)]
    #[diesel(sql_type = Text)]
    enum Colour {
        Red,
        Green,
    }

    impl ToSql<Text, Sqlite> for Colour {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(if *self == Self::Red { "red" } else { "green" });
            Ok(serialize::IsNull::No)
        }
    }

    impl FromSql<Text, Sqlite> for Colour {
        fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
            match <String as FromSql<Text, Sqlite>>::from_sql(value)?.as_str() {
                "red" => Ok(Self::Red),
                "green" => Ok(Self::Green),
                other => Err(format!("{other} is no colour").into()),
            }
        }
    }

    let conn = &mut *fresh_with(VALUES);
    let returned: Colour = diesel::insert_into(everything::table)
        .values(everything::text.eq(Colour::Green))
        .returning(everything::text.assume_not_null())
        .get_result(conn)
        .unwrap();
    assert_eq!(returned, Colour::Green);
    diesel::update(everything::table).set(everything::text.eq("mauve")).execute(conn).unwrap();
    let error = everything::table
        .select(everything::text.assume_not_null())
        .first::<Colour>(conn)
        .unwrap_err();
    assert_eq!(error.to_string(), "Error deserializing field 'text'");
}

#[test]
fn a_value_that_cannot_be_serialized_is_not_written() {
    use diesel::expression::AsExpression;
    use diesel::serialize::{self, Output, ToSql};
    use diesel::sqlite::Sqlite;

    #[derive(Debug, Clone, Copy, AsExpression)]
    #[diesel(sql_type = Text)]
    struct Unserializable;

    impl ToSql<Text, Sqlite> for Unserializable {
        fn to_sql<'b>(&'b self, _: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            Err("it cannot be serialized".into())
        }
    }

    let conn = &mut *fresh_with(VALUES);
    let error = diesel::insert_into(everything::table)
        .values(everything::text.eq(Unserializable))
        .execute(conn)
        .unwrap_err();
    assert!(matches!(error, diesel::result::Error::SerializationError(_)), "{error:?}");
    assert_eq!(error.to_string(), "it cannot be serialized");
    assert_eq!(everything::table.count().get_result::<i64>(conn), Ok(1));
}
