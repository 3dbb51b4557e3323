//! Cutting a stream of bytes into lines and blocks of bounded length.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{AnyDelimiterCodec, Decoder};

/// The longest line or server-sent event accepted, in bytes. LiteFS's events have less than a
/// kilobyte.
pub(super) const MAX_LINE: usize = 1024 * 1024;

/// A line or a block is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Splits chunks of bytes into lines, wherever the chunks end: inside a line or a character.
#[derive(Debug)]
pub(super) struct Lines {
    codec: AnyDelimiterCodec,
    buffer: BytesMut,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        // Not `LinesCodec`: a line that is not UTF-8 must not end the stream.
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), limit);
        Self { codec, buffer: BytesMut::new() }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete line that is not blank, without its line end.
    ///
    /// A line that is too long must end the stream: the codec would drop the rest of it.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        while let Some(line) = self.codec.decode(&mut self.buffer).map_err(|_| TooLong)? {
            let length = line.trim_ascii_end().len();
            if length > 0 {
                return Ok(Some(line.slice(..length)));
            }
        }
        Ok(None)
    }
}

/// Watches that no server-sent event, which ends with a blank line, is longer than allowed.
#[derive(Debug)]
pub(super) struct Blocks {
    limit: usize,
    length: usize,
    line_is_empty: bool,
}

impl Blocks {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, length: 0, line_is_empty: true }
    }

    pub(super) fn check(&mut self, chunk: &[u8]) -> Result<(), TooLong> {
        for byte in chunk {
            match byte {
                b'\r' => {}
                b'\n' if self.line_is_empty => self.length = 0,
                b'\n' => self.line_is_empty = true,
                _ => {
                    self.line_is_empty = false;
                    self.length += 1;
                }
            }
            if self.length > self.limit {
                return Err(TooLong);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next().unwrap())
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn d11_several_lines_in_one_chunk_and_one_line_over_several() {
        let mut lines = Lines::new(100);
        lines.push(b"one\ntwo\r\n\n\r\n thr");
        assert_eq!(all(&mut lines), ["one", "two"]);
        lines.push(b"e");
        assert!(all(&mut lines).is_empty());
        lines.push(b"e\nfour");
        assert_eq!(all(&mut lines), [" three"]);
    }

    #[test]
    fn d11_a_chunk_may_end_inside_a_character() {
        let mut lines = Lines::new(100);
        for byte in "{\"é\":\"漢🦀\"}\n".as_bytes() {
            lines.push(&[*byte]);
        }
        assert_eq!(all(&mut lines), ["{\"é\":\"漢🦀\"}"]);
    }

    #[test]
    fn a_line_past_the_limit_is_refused_before_and_after_its_end_arrives() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n");
        assert_eq!(all(&mut lines), ["1234"]);
        lines.push(b"12345");
        assert_eq!(lines.next(), Err(TooLong));
        let mut lines = Lines::new(4);
        lines.push(b"12345\n");
        assert_eq!(lines.next(), Err(TooLong));
    }

    #[test]
    fn d10_a_line_that_is_not_utf8_does_not_end_the_stream() {
        let mut lines = Lines::new(100);
        lines.push(b"\xff\xfe\nnext\n");
        assert_eq!(lines.next(), Ok(Some(Bytes::from_static(b"\xff\xfe"))));
        assert_eq!(all(&mut lines), ["next"]);
    }

    #[test]
    fn a_server_sent_event_past_the_limit_is_refused_but_not_many_short_ones() {
        let mut blocks = Blocks::new(10);
        for _ in 0..10 {
            assert_eq!(blocks.check(b":ping\r\n\r\ndata:1"), Ok(()));
            assert_eq!(blocks.check(b"\n\n"), Ok(()));
        }
        assert_eq!(blocks.check(b"data:1\ndata:2\n"), Err(TooLong));
    }

    proptest! {
        #[test]
        fn d11_the_lines_do_not_depend_on_the_chunks(
            text in "[a-zé漢\n]{0,80}",
            cuts: Vec<prop::sample::Index>,
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::new(1000);
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                lines.push(&bytes[pair[0]..pair[1]]);
                found.extend(all(&mut lines));
            }
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let expected: Vec<&str> = whole.split('\n').filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
