//! Where a head ends.

use memchr::memchr;

use super::error::BadRequest;

/// Which line ends are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnds {
    /// CR LF alone: what a client sends is refused otherwise, because the next
    /// reader might see other lines than we do.
    Strict,
    /// LF alone as well (RFC 9112 section 2.2): what an old server sends is
    /// understood, and written anew with CR LF.
    Lenient,
}

/// Looks for the empty line that ends a head, in a buffer that grows. Each
/// byte is looked at once.
#[derive(Clone, Debug)]
pub struct HeadScanner {
    line_ends: LineEnds,
    /// How far was looked.
    at: usize,
    /// Where the line begins that is looked at.
    line: usize,
    /// Where the first line ended, its line end included.
    first: Option<usize>,
}

impl HeadScanner {
    /// Starts at the first byte of a head.
    #[must_use]
    pub const fn new(line_ends: LineEnds) -> Self {
        Self {
            line_ends,
            at: 0,
            line: 0,
            first: None,
        }
    }

    /// The length of the head in bytes, its empty line included, or `None`
    /// when more bytes are needed. `bytes` begins with what it was before.
    ///
    /// # Errors
    /// [`BadRequest::LineEnd`] at the first line end that is not taken.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadRequest> {
        while let Some(rest) = bytes.get(self.at..) {
            let Some(feed) = memchr(b'\n', rest) else {
                self.at = bytes.len();
                return Ok(None);
            };
            let feed = self.at + feed;
            let line = bytes.get(self.line..feed).unwrap_or_default();
            let line = match (line.strip_suffix(b"\r"), self.line_ends) {
                (Some(line), _) => line,
                (None, LineEnds::Lenient) => line,
                (None, LineEnds::Strict) => return Err(BadRequest::LineEnd),
            };
            self.at = feed + 1;
            self.line = self.at;
            if line.is_empty() {
                return Ok(Some(self.at));
            }
            self.first.get_or_insert(self.at);
        }
        Ok(None)
    }

    /// The first line without its line end, once it is there.
    #[must_use]
    pub fn first_line<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let line = bytes.get(..self.first?)?;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], line_ends: LineEnds) -> Result<Option<usize>, BadRequest> {
        HeadScanner::new(line_ends).scan(bytes)
    }

    #[test]
    fn the_empty_line_ends_a_head_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n\n";
        assert_eq!(whole(head, LineEnds::Strict), Ok(Some(27)));
        let mut scanner = HeadScanner::new(LineEnds::Strict);
        for length in 0..27 {
            assert_eq!(scanner.scan(&head[..length]), Ok(None), "{length}");
        }
        assert_eq!(
            scanner.first_line(&head[..26]),
            Some(&b"GET / HTTP/1.1"[..])
        );
        assert_eq!(scanner.scan(head), Ok(Some(27)));
    }

    #[test]
    fn a_line_feed_alone_ends_lines_of_servers_only() {
        let head = b"HTTP/1.0 200 OK\nA: b\n\n";
        assert_eq!(whole(head, LineEnds::Lenient), Ok(Some(head.len())));
        assert_eq!(whole(head, LineEnds::Strict), Err(BadRequest::LineEnd));
        assert_eq!(
            whole(b"GET / HTTP/1.1\r\nX: a\nY: b\r\n", LineEnds::Strict),
            Err(BadRequest::LineEnd)
        );
    }
}
