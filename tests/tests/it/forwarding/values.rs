//! Values of every type in forwarded statements and their rows.

use diesel::prelude::*;

use super::{everything, test_cluster};

type Row = (i32, Option<i64>, Option<f64>, Option<String>, Option<Vec<u8>>);

fn edge_rows() -> Vec<Row> {
    let text = |s: &str| Some(s.to_owned());
    vec![
        (1, None, None, None, None),
        (2, Some(i64::MIN), Some(-0.5), text(""), Some(vec![])),
        (3, Some(i64::MAX), Some(f64::INFINITY), text("a\0b"), Some(vec![0, 255])),
        (
            4,
            Some(0),
            Some(f64::NEG_INFINITY),
            text("\u{1F980} 'quoted' \"?\""),
            Some(vec![7; 100_000]),
        ),
        (5, Some(-1), Some(5e-324), text(&"é".repeat(50_000)), None),
        (6, Some(1), Some(f64::MAX), text("?1 :x @y"), None),
    ]
}

#[test]
fn m4_every_sql_type_is_returned_by_every_load_method() {
    let test = test_cluster();
    let mut conn = test.conn("b");
    for row in edge_rows() {
        let (id, i, d, t, b) = row.clone();
        let values = (
            everything::id.eq(id),
            everything::i.eq(i),
            everything::d.eq(d),
            everything::t.eq(t),
            everything::b.eq(b),
        );
        let insert = diesel::insert_into(everything::table)
            .values(values)
            .returning(everything::all_columns);
        let back: Row = insert.get_result(&mut conn).unwrap();
        assert_eq!(format!("{back:?}"), format!("{row:?}"));
    }
    let update = || {
        diesel::update(everything::table)
            .set(everything::i.eq(everything::i))
            .returning(everything::all_columns)
    };
    let expected = format!("{:?}", edge_rows());
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by_key(|row| row.0);
        format!("{rows:?}")
    };
    assert_eq!(sorted(update().load(&mut conn).unwrap()), expected);
    assert_eq!(sorted(update().get_results(&mut conn).unwrap()), expected);
    let iterated =
        update().load_iter::<Row, diesel::connection::DefaultLoadingMode>(&mut conn).unwrap();
    assert_eq!(sorted(iterated.map(Result::unwrap).collect()), expected);
    assert_eq!(sorted(everything::table.load(&mut test.plain("a")).unwrap()), expected);
    assert_eq!(sorted(everything::table.load(&mut conn).unwrap()), expected);
}

#[test]
fn m4_a_negative_zero_keeps_its_sign_on_the_wire() {
    // In a REAL column SQLite stores it as an integer; as an expression it is not converted.
    let zero: f64 = test_cluster()
        .conn("b")
        .on_primary(|conn| {
            diesel::select((-0.0_f64).into_sql::<diesel::sql_types::Double>()).get_result(conn)
        })
        .unwrap();
    assert_eq!(zero.to_bits(), (-0.0_f64).to_bits());
}

#[test]
fn m4_a_nan_becomes_null_as_in_sqlite() {
    let test = test_cluster();
    let back: Option<f64> = diesel::insert_into(everything::table)
        .values(everything::d.eq(f64::NAN))
        .returning(everything::d)
        .get_result(&mut test.conn("b"))
        .unwrap();
    assert_eq!(back, None);
}
