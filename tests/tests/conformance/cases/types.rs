//! Every SQL type is written, stored and read back exactly, including its extreme values.

use diesel::prelude::*;
use diesel::sql_types::{Bool, Double, Integer, Text};

use super::{Conn, fresh, fresh_with};
use crate::schema::{VALUES, everything};

/// Writes each value with RETURNING, reads it back, and checks its storage class.
macro_rules! round_trip {
    ($conn:expr, $column:ident, $type:ty, [$(($value:expr, $stored:expr)),+ $(,)?]) => {
        $({
            let value: $type = $value;
            let returned: Option<$type> = diesel::insert_into(everything::table)
                .values(everything::$column.eq(Some(value.clone())))
                .returning(everything::$column)
                .get_result($conn)
                .unwrap();
            assert_eq!(returned, Some(value.clone()), "returned");
            let stored: Option<$type> = everything::table
                .order(everything::id.desc())
                .select(everything::$column)
                .first($conn)
                .unwrap();
            assert_eq!(stored, Some(value), "stored");
            assert_eq!(type_of_last($conn, stringify!($column)), $stored);
        })+
    };
}

fn type_of_last(conn: &mut Conn, column: &str) -> String {
    diesel::dsl::sql::<Text>(&format!(
        "SELECT typeof({column}) FROM everything ORDER BY id DESC LIMIT 1"
    ))
    .get_result(conn)
    .unwrap()
}

#[test]
fn small_integers() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        small,
        i16,
        [(0, "integer"), (-1, "integer"), (i16::MIN, "integer"), (i16::MAX, "integer")]
    );
}

#[test]
fn integers() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        int,
        i32,
        [(0, "integer"), (-1, "integer"), (i32::MIN, "integer"), (i32::MAX, "integer")]
    );
}

#[test]
fn big_integers() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        big,
        i64,
        [
            (0, "integer"),
            (-1, "integer"),
            (i64::MIN, "integer"),
            (i64::MAX, "integer"),
            // The first integers that a double cannot represent.
            ((1 << 53) + 1, "integer"),
        ]
    );
}

#[test]
fn floats() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        float,
        f32,
        [
            (0.0, "real"),
            (0.1, "real"),
            (f32::MIN, "real"),
            (f32::MAX, "real"),
            (f32::MIN_POSITIVE, "real"),
            (f32::from_bits(1), "real"),
            (f32::INFINITY, "real"),
            (f32::NEG_INFINITY, "real"),
        ]
    );
}

#[test]
fn doubles() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        double,
        f64,
        [
            (0.0, "real"),
            (0.1, "real"),
            (1.0, "real"),
            (std::f64::consts::PI, "real"),
            (f64::MIN, "real"),
            (f64::MAX, "real"),
            (f64::MIN_POSITIVE, "real"),
            (f64::from_bits(1), "real"),
            (f64::EPSILON, "real"),
            (9_007_199_254_740_993.0, "real"),
            (f64::INFINITY, "real"),
            (f64::NEG_INFINITY, "real"),
        ]
    );
}

/// A REAL column stores whole numbers as integers, which have no negative zero. A column without a
/// type keeps the bits.
#[test]
fn negative_zero_keeps_its_sign_in_untyped_columns_only() {
    let conn = &mut *fresh_with("CREATE TABLE zeros (id INTEGER PRIMARY KEY, typed REAL, untyped)");
    diesel::sql_query("INSERT INTO zeros (typed, untyped) VALUES (?, ?)")
        .bind::<Double, _>(-0.0)
        .bind::<Double, _>(-0.0)
        .execute(conn)
        .unwrap();
    let (typed, untyped): (f64, f64) =
        diesel::dsl::sql::<(Double, Double)>("SELECT typed, untyped FROM zeros")
            .get_result(conn)
            .unwrap();
    assert_eq!(typed.to_bits(), 0.0_f64.to_bits());
    assert_eq!(untyped.to_bits(), (-0.0_f64).to_bits());
}

#[test]
fn a_negative_zero_that_is_returned_has_lost_its_sign_too() {
    let conn = &mut *fresh_with(VALUES);
    let returned: f64 = diesel::insert_into(everything::table)
        .values(everything::double.eq(-0.0))
        .returning(everything::double.assume_not_null())
        .get_result(conn)
        .unwrap();
    assert_eq!(returned.to_bits(), 0.0_f64.to_bits());
}

#[test]
fn nan_becomes_null() {
    let conn = &mut *fresh_with(VALUES);
    let returned: Option<f64> = diesel::insert_into(everything::table)
        .values(everything::double.eq(f64::NAN))
        .returning(everything::double)
        .get_result(conn)
        .unwrap();
    assert_eq!(returned, None);
    let stored: i64 = everything::table
        .filter(everything::id.gt(0).and(everything::double.is_null()))
        .count()
        .get_result(conn)
        .unwrap();
    assert_eq!(stored, 1);
}

#[test]
fn texts() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        text,
        String,
        [
            (String::new(), "text"),
            ("plain".into(), "text"),
            ("it's \"quoted\" -- not; a comment /* */".into(), "text"),
            ("🦀 ﷽ e\u{301} \u{10ffff}".into(), "text"),
            ("\u{feff}line\r\nline\ttab".into(), "text"),
            // Text columns store digits as text.
            ("0042".into(), "text"),
        ]
    );
}

#[test]
fn text_with_nul_characters_is_kept() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(conn, text, String, [("\0".into(), "text"), ("a\0b\0".into(), "text")]);
    let bytes: i32 = diesel::dsl::sql::<Integer>(
        "SELECT length(CAST(text AS BLOB)) FROM everything ORDER BY id DESC",
    )
    .get_result(conn)
    .unwrap();
    assert_eq!(bytes, 4);
}

#[test]
fn a_text_of_one_megabyte() {
    let conn = &mut *fresh_with(VALUES);
    let text = "0123456789abcdé".repeat(1 << 16);
    assert_eq!(text.len(), 1 << 20);
    round_trip!(conn, text, String, [(text.clone(), "text")]);
}

#[test]
fn blobs() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(
        conn,
        blob,
        Vec<u8>,
        [
            (vec![], "blob"),
            (vec![0], "blob"),
            ((0..=255).collect(), "blob"),
            (b"text in a blob".to_vec(), "blob"),
        ]
    );
}

#[test]
fn a_blob_of_one_megabyte() {
    let conn = &mut *fresh_with(VALUES);
    let blob: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    round_trip!(conn, blob, Vec<u8>, [(blob.clone(), "blob")]);
}

#[test]
fn an_empty_blob_and_an_empty_text_are_not_null() {
    let conn = &mut *fresh_with(VALUES);
    diesel::insert_into(everything::table)
        .values((everything::blob.eq(Vec::<u8>::new()), everything::text.eq("")))
        .execute(conn)
        .unwrap();
    let found: i64 = everything::table
        .filter(everything::blob.is_not_null().and(everything::text.is_not_null()))
        .count()
        .get_result(conn)
        .unwrap();
    assert_eq!(found, 1);
}

#[test]
fn booleans_are_stored_as_one_and_zero() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(conn, flag, bool, [(false, "integer"), (true, "integer")]);
    let raw: Vec<i32> =
        diesel::dsl::sql::<Integer>("SELECT flag FROM everything WHERE id > 0 ORDER BY id")
            .load(conn)
            .unwrap();
    assert_eq!(raw, [0, 1]);
}

#[test]
fn any_number_but_zero_is_true() {
    let conn = &mut *fresh();
    let read: Vec<bool> =
        diesel::dsl::sql::<Bool>("SELECT column1 FROM (VALUES (0), (1), (2), (-1))")
            .load(conn)
            .unwrap();
    assert_eq!(read, [false, true, true, true]);
}

#[test]
fn dates_times_and_timestamps_are_kept_as_text() {
    let conn = &mut *fresh_with(VALUES);
    round_trip!(conn, date, String, [("2024-02-29".into(), "text"), ("0001-01-01".into(), "text")]);
    round_trip!(
        conn,
        time,
        String,
        [("23:59:59.999999".into(), "text"), ("00:00:00".into(), "text")]
    );
    round_trip!(conn, stamp, String, [("9999-12-31 23:59:59.999999".into(), "text")]);
}

/// DATE, TIME and TIMESTAMP have SQLite's NUMERIC affinity: text that looks like a number is
/// converted to one.
#[test]
fn a_date_that_looks_like_a_number_is_stored_as_one() {
    let conn = &mut *fresh_with(VALUES);
    diesel::sql_query("INSERT INTO everything (date) VALUES ('20240229')").execute(conn).unwrap();
    assert_eq!(type_of_last(conn, "date"), "integer");
}

#[test]
fn null_in_every_type() {
    let conn = &mut *fresh_with(VALUES);
    type Row = (
        (Option<i16>, Option<i32>, Option<i64>, Option<f32>, Option<f64>, Option<String>),
        (Option<Vec<u8>>, Option<bool>, Option<String>, Option<String>, Option<String>),
    );
    let nulls = (
        everything::small.eq(None::<i16>),
        everything::int.eq(None::<i32>),
        everything::big.eq(None::<i64>),
        everything::float.eq(None::<f32>),
        everything::double.eq(None::<f64>),
        everything::text.eq(None::<String>),
        everything::blob.eq(None::<Vec<u8>>),
        everything::flag.eq(None::<bool>),
        everything::date.eq(None::<String>),
        everything::time.eq(None::<String>),
        everything::stamp.eq(None::<String>),
    );
    let columns = (
        (
            everything::small,
            everything::int,
            everything::big,
            everything::float,
            everything::double,
            everything::text,
        ),
        (everything::blob, everything::flag, everything::date, everything::time, everything::stamp),
    );
    let updated = diesel::update(everything::table.find(0)).set(nulls).execute(conn);
    assert_eq!(updated, Ok(1));
    let row: Row = everything::table.find(0).select(columns).get_result(conn).unwrap();
    assert_eq!(row, ((None, None, None, None, None, None), (None, None, None, None, None)));
}
