/// What a run of characters is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or a bare identifier.
    Word,
    /// A quoted identifier or string: `'..'`, `".."`, `` `..` ``, `[..]`.
    Quoted,
    /// A semicolon.
    Semicolon,
    /// An opening parenthesis.
    Open,
    /// A closing parenthesis.
    Close,
    /// Anything else: operators, numbers, parameters.
    Other,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// Its text.
    pub text: &'a str,
    /// The byte where it begins.
    pub start: usize,
}

impl Token<'_> {
    /// The byte behind its last.
    #[must_use]
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this bare word, in any case.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }
}

/// The tokens of SQL text, without white space and comments. Total: any text has tokens, an unterminated string
/// reaches to the end.
pub fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at = skip_blank(sql.as_bytes(), at);
        let (kind, end) = token_at(sql, at)?;
        let token = Token { kind, text: &sql[at..end], start: at };
        at = end;
        Some(token)
    })
}

fn skip_blank(sql: &[u8], mut at: usize) -> usize {
    loop {
        match sql.get(at..) {
            Some([c, ..]) if c.is_ascii_whitespace() || *c == 0x0b => at += 1,
            Some([b'-', b'-', ..]) => at = past(sql, at, b"\n"),
            Some([b'/', b'*', ..]) => at = past(sql, at + 2, b"*/"),
            _ => return at,
        }
    }
}

/// The byte behind the next `needle`, or the end.
fn past(sql: &[u8], from: usize, needle: &[u8]) -> usize {
    let rest = sql.get(from..).unwrap_or_default();
    rest.windows(needle.len()).position(|w| w == needle).map_or(sql.len(), |i| from + i + needle.len())
}

fn token_at(sql: &str, at: usize) -> Option<(TokenKind, usize)> {
    let bytes = sql.as_bytes();
    let first = *bytes.get(at)?;
    Some(match first {
        b';' => (TokenKind::Semicolon, at + 1),
        b'(' => (TokenKind::Open, at + 1),
        b')' => (TokenKind::Close, at + 1),
        b'\'' | b'"' | b'`' => (TokenKind::Quoted, quoted_end(bytes, at, first)),
        b'[' => (TokenKind::Quoted, past(bytes, at, b"]")),
        c if is_word(c) && !c.is_ascii_digit() => (TokenKind::Word, word_end(bytes, at)),
        c if is_word(c) => (TokenKind::Other, word_end(bytes, at)),
        _ => (TokenKind::Other, at + 1),
    })
}

/// A doubled quote stands for the quote itself.
fn quoted_end(sql: &[u8], at: usize, quote: u8) -> usize {
    let mut end = past(sql, at + 1, &[quote]);
    while sql.get(end) == Some(&quote) {
        end = past(sql, end + 1, &[quote]);
    }
    end
}

/// SQLite takes every byte above 0x7f as part of an identifier, so multi-byte characters stay whole.
fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80
}

fn word_end(sql: &[u8], at: usize) -> usize {
    sql[at..].iter().position(|c| !is_word(*c)).map_or(sql.len(), |i| at + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).map(|t| t.text).collect()
    }

    #[test]
    fn quotes_comments_and_words_are_told_apart() {
        assert_eq!(
            texts("SELECT 'a;''b' -- c;\n, \"x\"\"y\" /* ; */ ;"),
            ["SELECT", "'a;''b'", ",", "\"x\"\"y\"", ";"]
        );
        assert_eq!(texts("a[b;c]`d;e`x'00'"), ["a", "[b;c]", "`d;e`", "x", "'00'"]);
        assert_eq!(texts("größe=?1"), ["größe", "=", "?", "1"]);
    }

    #[test]
    fn unterminated_text_reaches_to_the_end() {
        assert_eq!(texts("SELECT 'abc"), ["SELECT", "'abc"]);
        assert_eq!(texts("SELECT /* abc"), ["SELECT"]);
        assert_eq!(texts("SELECT [abc"), ["SELECT", "[abc"]);
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
}
