//! Tests of the tokenizer.

use proptest::prelude::*;

use super::*;

fn texts(sql: &str) -> Vec<&str> {
    tokens(sql).map(|t| t.text).collect()
}

#[test]
fn quotes_comments_and_words_are_told_apart() {
    assert_eq!(
        texts("SELECT 'a;''b' -- c;\n, \"x\"\"y\" /* ; */ ;"),
        ["SELECT", "'a;''b'", ",", "\"x\"\"y\"", ";"]
    );
    assert_eq!(texts("a[b;c]`d;e`x'00'"), ["a", "[b;c]", "`d;e`", "x'00'"]);
    assert_eq!(texts("größe=?1"), ["größe", "=", "?1"]);
    assert_eq!(texts("a/**/b/*/;*/c --;"), ["a", "b", "c"]);
}

#[test]
fn unterminated_text_reaches_to_the_end() {
    assert_eq!(texts("SELECT 'abc"), ["SELECT", "'abc"]);
    assert_eq!(texts("SELECT /* abc"), ["SELECT"]);
    assert_eq!(texts("SELECT [abc"), ["SELECT", "[abc"]);
    assert_eq!(texts("SELECT x'ab;"), ["SELECT", "x'ab;"]);
    assert_eq!(texts("SELECT /*"), ["SELECT", "/", "*"]);
    assert_eq!(texts("SELECT 1;\0 DROP"), ["SELECT", "1", ";"]);
}

#[test]
fn a_byte_order_mark_is_blank_between_tokens_only() {
    assert_eq!(texts("\u{feff}SELECT\n\u{feff}1;\u{feff}"), ["SELECT", "1", ";"]);
    assert_eq!(texts("a\u{feff}b"), ["a\u{feff}b"]);
    assert_eq!(texts("\u{fefe}a"), ["\u{fefe}a"]);
    assert_eq!(texts("a \u{b}b\u{b}c"), ["a", "b", "\u{b}", "c"]);
}

#[test]
fn a_parameter_is_one_token() {
    for whole in [
        "?", "?12", ":a", "@a1", "#1", "$a", "$a::b", "$::a(;)", "@a(';--)", ":a()", "$a::::b",
        "$é",
    ] {
        assert_eq!(texts(whole), [whole]);
        assert_eq!(tokens(whole).next().map(|token| token.kind), Some(TokenKind::Parameter));
    }
    assert_eq!(texts("?1a"), ["?1", "a"]);
    assert_eq!(texts(":a:b"), [":a", ":b"]);
    assert_eq!(texts("$a:::b"), ["$a::", ":b"]);
    assert_eq!(texts("$(a)"), ["$", "(", "a", ")"]);
    assert_eq!(texts("$a(b c)"), ["$a(b", "c", ")"]);
    assert_eq!(texts("$a (b)"), ["$a", "(", "b", ")"]);
}

#[test]
fn a_number_is_one_token() {
    for whole in ["1", "1.5", ".5", "5.", "1e5", "1E-5", "1_000.5e+1_0", "0xAF", "1st", "0x1.5"] {
        let number = if whole == "0x1.5" { vec!["0x1", ".5"] } else { vec![whole] };
        assert_eq!(texts(whole), number);
    }
    assert_eq!(texts("1e--5"), ["1e"]);
    assert_eq!(texts("t.5"), ["t", ".5"]);
    assert_eq!(texts("t.a"), ["t", ".", "a"]);
}

proptest! {
    #[test]
    fn any_text_has_tokens_that_cover_it_in_order(sql in "\\PC*") {
        let mut at = 0;
        for token in tokens(&sql) {
            prop_assert!(token.start >= at && !token.text.is_empty());
            prop_assert_eq!(&sql[token.start..token.end()], token.text);
            at = token.end();
        }
    }
}
