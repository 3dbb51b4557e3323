//! Shapes differ where the encoding of two types, or their meaning, differs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Shape;

fn text<T: super::DeserializeOwned>() -> String {
    Shape::of::<T>().text
}

fn whole<T: super::DeserializeOwned>() -> String {
    Shape::of::<T>().whole
}

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: i64,
    to: Option<String>,
    items: Vec<Item>,
    more: HashMap<u8, f64>,
}

#[derive(Serialize, Deserialize)]
struct Item(u32, bool);

#[derive(Serialize, Deserialize)]
struct Id(i64);

#[derive(Serialize, Deserialize)]
enum Kind {
    Plain,
    Sized { width: u16 },
    Both(i8, Box<Kind>),
}

#[derive(Serialize, Deserialize)]
struct Tree {
    name: String,
    left: Option<Box<Tree>>,
    right: Vec<Tree>,
}

/// An enum whose first variant does not end.
#[derive(Serialize, Deserialize)]
enum Expression {
    Sum(Box<Expression>, Box<Expression>),
    Number(i64),
}

#[test]
fn names_fields_and_kinds_are_in_it() {
    assert_eq!(
        text::<Transfer>(),
        "Transfer{from:i64, to:?str, items:[Item(u32, bool)], more:<u8: f64>}"
    );
    assert_eq!(text::<(Id, ())>(), "(Id=i64, ())");
}

#[test]
fn every_variant_is_read() {
    let whole = whole::<(Kind, Option<Kind>)>();
    for variant in [".Plain", ".Sized(width:u16)", ".Both(i8, "] {
        assert!(whole.contains(variant), "{variant} in {whole}");
    }
}

#[test]
fn recursive_types_have_an_end() {
    assert!(text::<Tree>().starts_with("Tree{name:str, left:?Tree{name:str, left:?, right:[]}"));
    assert!(whole::<Expression>().contains(".Number(i64)"), "{}", whole::<Expression>());
}

#[test]
fn each_change_of_a_type_is_another_shape() {
    mod other {
        use serde::{Deserialize, Serialize};
        #[derive(Serialize, Deserialize)]
        pub(super) struct Id(i32);
        #[derive(Serialize, Deserialize)]
        pub(super) enum Kind {
            Plain,
            Sized { width: u32 },
            Both(i8, Box<Kind>),
        }
        #[derive(Serialize, Deserialize)]
        pub(super) struct Item(u32, bool);
    }
    assert_ne!(whole::<Id>(), whole::<other::Id>());
    assert_ne!(whole::<Kind>(), whole::<other::Kind>(), "in a later variant");
    assert_eq!(whole::<Item>(), whole::<other::Item>(), "in another module");
    assert_eq!(whole::<Kind>(), whole::<Kind>());
}

#[test]
fn the_shape_ends_where_a_value_is_refused() {
    #[derive(Deserialize)]
    struct Refusing {
        #[expect(dead_code, reason = "only its type counts")]
        before: u8,
        #[expect(dead_code, reason = "only its type counts")]
        address: std::ffi::CString,
    }
    // A C string reads bytes, and refuses the zeros in them.
    assert_eq!(text::<Refusing>(), "Refusing{before:u8, address:bytes");
}
