//! SQLite's tokenizer: `sqlite3GetToken` in <https://sqlite.org/src/file/src/tokenize.c>.

/// What a run of characters is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or a bare identifier.
    Word,
    /// A quoted identifier or string: `'..'`, `".."`, `` `..` ``, `[..]`.
    Quoted,
    /// A parameter: `?`, `?1`, `:name`, `@name`, `$name::part(suffix)`.
    Parameter,
    /// A semicolon.
    Semicolon,
    /// An opening parenthesis.
    Open,
    /// A closing parenthesis.
    Close,
    /// Anything else: numbers, blobs, and operators, each character of these on its own.
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

    /// Whether it can name something: a bare word or a quoted one.
    pub(super) fn is_name(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Quoted)
    }
}

/// The tokens of SQL text, without white space and comments. Total: any text has tokens, an
/// unterminated string reaches to the end. The text ends at a NUL, as it does for SQLite.
pub fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let sql = sql.split('\0').next().unwrap_or_default();
    let mut at = 0;
    std::iter::from_fn(move || {
        at = skip_blank(sql.as_bytes(), at);
        let (kind, end) = token_at(sql.as_bytes(), at)?;
        let token = Token { kind, text: &sql[at..end], start: at };
        at = end;
        Some(token)
    })
}

/// U+FEFF, white space where a token can begin.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn skip_blank(sql: &[u8], mut at: usize) -> usize {
    loop {
        let rest = sql.get(at..).unwrap_or_default();
        at += match rest {
            // A vertical tab is white space behind other white space only.
            [first, ..] if is_blank(*first) && *first != 0x0b => run(rest, is_blank),
            [b'-', b'-', ..] => run(rest, |c| c != b'\n'),
            [b'/', b'*', _, ..] => past(rest, 2, b"*/"),
            _ if rest.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            _ => return at,
        };
    }
}

fn is_blank(c: u8) -> bool {
    matches!(c, b'\t'..=b'\r' | b' ')
}

/// How many bytes at the beginning of `sql` pass `test`.
fn run(sql: &[u8], test: impl Fn(u8) -> bool) -> usize {
    sql.iter().position(|c| !test(*c)).unwrap_or(sql.len())
}

/// The byte behind the next `needle`, or the end.
fn past(sql: &[u8], from: usize, needle: &[u8]) -> usize {
    let rest = sql.get(from..).unwrap_or_default();
    rest.windows(needle.len())
        .position(|w| w == needle)
        .map_or(sql.len(), |i| from + i + needle.len())
}

fn token_at(sql: &[u8], at: usize) -> Option<(TokenKind, usize)> {
    let rest = sql.get(at..)?;
    let (kind, length) = match rest {
        [] => return None,
        [b';', ..] => (TokenKind::Semicolon, 1),
        [b'(', ..] => (TokenKind::Open, 1),
        [b')', ..] => (TokenKind::Close, 1),
        [quote @ (b'\'' | b'"' | b'`'), ..] => (TokenKind::Quoted, quoted(rest, *quote)),
        [b'[', ..] => (TokenKind::Quoted, past(rest, 1, b"]")),
        [b'?', ..] => (TokenKind::Parameter, 1 + run(&rest[1..], |c| c.is_ascii_digit())),
        [b'$' | b'@' | b':' | b'#', ..] => (TokenKind::Parameter, parameter(rest)),
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => (TokenKind::Other, number(rest)),
        [b'x' | b'X', b'\'', ..] => (TokenKind::Other, past(rest, 2, b"'")),
        [c, ..] if is_word(*c) => (TokenKind::Word, run(rest, is_word)),
        _ => (TokenKind::Other, 1),
    };
    Some((kind, at + length))
}

/// A doubled quote stands for the quote itself.
fn quoted(sql: &[u8], quote: u8) -> usize {
    let mut end = past(sql, 1, &[quote]);
    while sql.get(end) == Some(&quote) {
        end = past(sql, end + 1, &[quote]);
    }
    end
}

/// SQLite takes every byte above 0x7f as part of an identifier, so multi-byte characters stay
/// whole.
fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80
}

/// A name with `::` anywhere and a suffix in parentheses, which holds anything but white space,
/// semicolons too.
fn parameter(sql: &[u8]) -> usize {
    let (mut end, mut named) = (1, false);
    loop {
        end += match &sql[end..] {
            [c, ..] if is_word(*c) => {
                named = true;
                1
            }
            [b':', b':', ..] => 2,
            [b'(', suffix @ ..] if named => return end + 1 + parameter_suffix(suffix),
            _ => return end,
        };
    }
}

/// With the parenthesis that closes it. Without one SQLite takes it for one wrong token, which ends
/// at white space.
fn parameter_suffix(sql: &[u8]) -> usize {
    let length = run(sql, |c| c != b')' && !is_blank(c));
    length + usize::from(sql.get(length) == Some(&b')'))
}

/// Also what no number is, such as `1st`: SQLite takes it for one wrong token.
fn number(sql: &[u8]) -> usize {
    let digits = |at: usize| at + run(&sql[at..], |c| c.is_ascii_digit() || c == b'_');
    let is_hex = matches!(sql, [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit());
    let mut end = 0;
    if !is_hex {
        end = digits(0);
        if sql.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if let [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] = &sql[end..] {
            end = digits(end + 2);
        }
    }
    end + run(&sql[end..], is_word)
}

#[cfg(test)]
mod tests;
