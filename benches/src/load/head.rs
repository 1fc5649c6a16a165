//! Heads of requests and responses, as far as the two ends of a benchmark need
//! them: they trust each other and only have to find where a message ends.

use memchr::memchr;
use thiserror::Error;

/// The longest head that is waited for, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// What is wrong with a head.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum BadHead {
    #[error("a head of more than {LONGEST} bytes")]
    Long,
    #[error("a first line that is not HTTP/1: '{0}'")]
    FirstLine(String),
    #[error("a chunked body, which the load generator does not read")]
    Chunked,
}

/// Head of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) length: usize,
    /// Bytes of the body; `None` when it ends with the connection.
    pub(super) body: Option<u64>,
    /// Nothing follows this response on its connection.
    pub(super) last: bool,
}

/// Head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) asks: Asks,
    /// Where the body begins.
    pub(super) length: usize,
    /// The client wants the connection closed afterwards.
    pub(super) last: bool,
}

/// What a request asks the origin for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// So many bytes.
    Get(u64),
    /// To take so many bytes.
    Put(u64),
    /// To go on as the host that is named.
    Connect,
}

/// Fields that say where a message ends.
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    fn field(&mut self, line: &[u8]) {
        if let Some(value) = value_of(line, b"content-length:") {
            self.content_length = decimal(value);
        } else if let Some(value) = value_of(line, b"connection:") {
            self.close |= value.eq_ignore_ascii_case(b"close");
            self.keep_alive |= value.eq_ignore_ascii_case(b"keep-alive");
        } else if let Some(value) = value_of(line, b"transfer-encoding:") {
            self.chunked |= value.eq_ignore_ascii_case(b"chunked");
        }
    }

    fn last(&self, minor: u8) -> bool {
        self.close || (minor == b'0' && !self.keep_alive)
    }
}

/// A head of either kind.
struct Head<'a> {
    first_line: &'a [u8],
    framing: Framing,
    length: usize,
}

/// Finds the head at the start of `bytes`; `None` when more are needed.
fn split(bytes: &[u8]) -> Result<Option<Head<'_>>, BadHead> {
    let mut framing = Framing::default();
    let mut first_line = None;
    let mut rest = bytes;
    while let Some((line, after)) = memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        rest = after.get(1..).unwrap_or_default();
        match (line, first_line) {
            ([], Some(first_line)) => {
                return Ok(Some(Head {
                    first_line,
                    framing,
                    length: bytes.len() - rest.len(),
                }));
            }
            (_, None) => first_line = Some(line),
            // No other field is of interest.
            ([b'c' | b'C' | b't' | b'T', ..], Some(_)) => framing.field(line),
            (_, Some(_)) => {}
        }
    }
    if bytes.len() > LONGEST {
        return Err(BadHead::Long);
    }
    Ok(None)
}

/// Reads the head of a response; `None` when it is not all there.
pub(super) fn response(bytes: &[u8]) -> Result<Option<ResponseHead>, BadHead> {
    let Some(head) = split(bytes)? else {
        return Ok(None);
    };
    let Head {
        first_line,
        framing,
        length,
    } = head;
    let bad = || BadHead::FirstLine(String::from_utf8_lossy(first_line).into_owned());
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor,
        b' ',
        a,
        b,
        c,
        ..,
    ] = first_line
    else {
        return Err(bad());
    };
    let status = decimal(&[*a, *b, *c])
        .and_then(|status| u16::try_from(status).ok())
        .ok_or_else(bad)?;
    if framing.chunked {
        return Err(BadHead::Chunked);
    }
    Ok(Some(ResponseHead {
        status,
        length,
        body: framing.content_length,
        last: framing.last(*minor),
    }))
}

/// Reads the head of a request in origin-form, absolute-form or for a tunnel;
/// `None` when it is not all there.
pub(super) fn request(bytes: &[u8]) -> Result<Option<RequestHead>, BadHead> {
    let Some(head) = split(bytes)? else {
        return Ok(None);
    };
    let Head {
        first_line,
        framing,
        length,
    } = head;
    let bad = || BadHead::FirstLine(String::from_utf8_lossy(first_line).into_owned());
    let mut words = first_line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor])) =
        (words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    if framing.chunked {
        return Err(BadHead::Chunked);
    }
    let asks = match method {
        b"GET" => {
            let size = target.rsplit(|byte| *byte == b'/').next();
            Asks::Get(size.and_then(decimal).ok_or_else(bad)?)
        }
        b"PUT" => Asks::Put(framing.content_length.unwrap_or(0)),
        b"CONNECT" => Asks::Connect,
        _ => return Err(bad()),
    };
    Ok(Some(RequestHead {
        asks,
        length,
        last: framing.last(*minor),
    }))
}

/// The value of a field whose name, with its colon, is `name` in lower case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// A decimal number; nothing at all is 0.
fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(bytes: &str) -> Result<Option<RequestHead>, BadHead> {
        request(bytes.as_bytes())
    }

    #[test]
    fn a_request_says_what_it_asks_for() {
        for (head, asks, last) in [
            ("GET /17 HTTP/1.1\r\nHost: a\r\n\r\n", Asks::Get(17), false),
            ("GET / HTTP/1.1\r\n\r\n", Asks::Get(0), false),
            (
                "GET http://a:80/1024 HTTP/1.0\r\n\r\n",
                Asks::Get(1024),
                true,
            ),
            (
                "GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                Asks::Get(1),
                false,
            ),
            (
                "PUT / HTTP/1.1\r\ncontent-length:  9 \r\nCONNECTION: close\r\n\r\n",
                Asks::Put(9),
                true,
            ),
            ("CONNECT a:443 HTTP/1.1\r\n\r\n", Asks::Connect, false),
        ] {
            let length = head.len();
            let expected = RequestHead { asks, length, last };
            assert_eq!(get(&format!("{head}more")), Ok(Some(expected)), "{head}");
            for end in 0..length {
                assert_eq!(get(&head[..end]), Ok(None), "{end} bytes of {head}");
            }
        }
    }

    #[test]
    fn a_request_that_is_not_understood_is_refused() {
        for head in [
            "GET /x HTTP/1.1\r\n\r\n",
            "HEAD /1 HTTP/1.1\r\n\r\n",
            "GET /1\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(get(head).is_err(), "{head}");
        }
        assert_eq!(get(&"x".repeat(LONGEST + 1)), Err(BadHead::Long));
    }

    #[test]
    fn a_response_says_where_it_ends() {
        for (head, status, body, last) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n",
                200,
                Some(1024),
                false,
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n",
                403,
                None,
                true,
            ),
            ("HTTP/1.0 200\r\n\r\n", 200, None, true),
        ] {
            let length = head.len();
            let expected = ResponseHead {
                status,
                length,
                body,
                last,
            };
            assert_eq!(response(head.as_bytes()), Ok(Some(expected)), "{head}");
        }
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(response(chunked), Err(BadHead::Chunked));
        assert!(response(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
