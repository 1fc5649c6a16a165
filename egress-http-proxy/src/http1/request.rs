//! A request's head as it was received, checked.

use std::str;

use super::connection::ConnectionOptions;
use super::error::BadRequest;
use super::fields::{Field, Fields, Known, members};
use super::length::{BodyLength, content_length};

/// The version of a message that we read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and later minor versions, which mean the same to us (RFC 9110
    /// section 2.5).
    Http11,
}

/// What a proxy must know of a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// CONNECT.
    Connect,
    /// HEAD: the response has no body.
    Head,
    /// OPTIONS: `Max-Forwards` counts (RFC 9110 section 7.6.2).
    Options,
    /// GET, PUT, DELETE: may be sent again (RFC 9110 section 9.2.2).
    Idempotent,
    /// Everything else.
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "CONNECT" => Self::Connect,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "GET" | "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::Other,
        }
    }

    /// Whether the request may be sent again when no answer came.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::Head | Self::Options | Self::Idempotent => true,
            Self::Connect | Self::Other => false,
        }
    }
}

/// What the target is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// CONNECT: the target is an authority.
    Tunnel,
    /// Any other method: the target must be an absolute URI.
    Forward,
}

/// The three parts of a request line (RFC 9112 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestLine<'b> {
    name: &'b str,
    target: &'b [u8],
    version: Version,
}

impl<'b> RequestLine<'b> {
    /// Reads a line without its line end. The target is checked by whoever
    /// judges it; here it is any text without blanks and control characters.
    /// Letters beyond ASCII have no place in a URI, but clients do send them in
    /// paths, and servers read them; bytes that are no UTF-8 are refused.
    ///
    /// # Errors
    /// [`BadRequest::RequestLine`] or [`BadRequest::Version`].
    pub fn parse(line: &'b [u8]) -> Result<Self, BadRequest> {
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let (Some(name), Some(target), version) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadRequest::RequestLine);
        };
        let is_clean = |byte: &u8| !byte.is_ascii_control();
        if name.is_empty()
            || !name.iter().all(|&byte| is_token(byte))
            || target.is_empty()
            || !target.iter().all(is_clean)
            || str::from_utf8(target).is_err()
        {
            return Err(BadRequest::RequestLine);
        }
        let version = match version {
            // `GET /` alone is HTTP/0.9.
            None => return Err(BadRequest::Version),
            Some(b"HTTP/1.0") => Version::Http10,
            Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]) if minor.is_ascii_digit() => {
                Version::Http11
            }
            Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(BadRequest::Version);
            }
            Some(_) => return Err(BadRequest::RequestLine),
        };
        Ok(Self {
            name: str::from_utf8(name).map_err(|_| BadRequest::RequestLine)?,
            target,
            version,
        })
    }
}

/// Whether `byte` is a `tchar` (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A request's head. All that could make two readers disagree has been
/// refused.
pub struct Request<'f, 'b> {
    line: RequestLine<'b>,
    /// The head without its first line.
    section: &'b [u8],
    fields: &'f [Field<'b>],
    facts: Facts,
}

/// What the fields of a head say to a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    body: BodyLength,
    connection: ConnectionOptions,
    has_upgrade: bool,
    upgrades_to_http2: bool,
    accepts_trailers: bool,
    expects_continue: bool,
    max_forwards: Option<u32>,
}

impl<'f, 'b> Request<'f, 'b> {
    /// Reads a whole head, as [`HeadScanner`](super::HeadScanner) found it with
    /// strict line ends. Its fields are put in `room`.
    ///
    /// # Errors
    /// [`BadRequest`]: the first thing that is wrong with it.
    pub fn parse(head: &'b [u8], room: &'f mut Fields<'b>) -> Result<Self, BadRequest> {
        let end = memchr::memchr(b'\r', head).ok_or(BadRequest::LineEnd)?;
        let (line, rest) = head.split_at_checked(end).ok_or(BadRequest::LineEnd)?;
        let line = RequestLine::parse(line)?;
        let rest = rest.strip_prefix(b"\r\n").ok_or(BadRequest::LineEnd)?;
        let parsed = room.read(rest, |room| {
            match httparse::parse_headers(rest, room)? {
                httparse::Status::Complete((_, fields)) => Ok((fields.len(), ())),
                // The scanner has seen the end of the head.
                httparse::Status::Partial => Err(httparse::Error::NewLine),
            }
        });
        let fields = match parsed {
            Ok((fields, ())) => fields,
            Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooManyFields),
            Err(_) => return Err(BadRequest::Field),
        };
        let facts = Facts::of(&line, fields)?;
        Ok(Self {
            line,
            section: rest,
            fields,
            facts,
        })
    }

    /// The method's name, as it was sent.
    #[must_use]
    pub fn method_name(&self) -> &'b str {
        self.line.name
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        Method::of(self.line.name)
    }

    /// What kind of target there must be.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.method() {
            Method::Connect => Form::Tunnel,
            Method::Head | Method::Options | Method::Idempotent | Method::Other => Form::Forward,
        }
    }

    /// The request target, as it was sent.
    #[must_use]
    pub fn target(&self) -> &'b [u8] {
        self.line.target
    }

    /// The client's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// How long the body is.
    #[must_use]
    pub fn body(&self) -> BodyLength {
        self.facts.body
    }

    /// Whether the client keeps its connection for another request.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.facts.connection.persists(self.line.version)
    }

    /// Whether the client waits for 100 before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.facts.expects_continue
    }

    /// Whether the client asks to speak another protocol on this connection
    /// (RFC 9110 section 7.8).
    #[must_use]
    pub fn asks_to_upgrade(&self) -> bool {
        // HTTP/2 over the same connection would carry requests that nobody
        // judges.
        self.facts.has_upgrade
            && !self.facts.upgrades_to_http2
            && self.facts.connection.asks_to_upgrade()
            && self.line.version == Version::Http11
    }

    /// Whether the request ends here: OPTIONS with `Max-Forwards: 0` (RFC 9110
    /// section 7.6.2).
    #[must_use]
    pub fn ends_here(&self) -> bool {
        self.facts.max_forwards == Some(0)
    }

    pub(super) fn max_forwards(&self) -> Option<u32> {
        self.facts.max_forwards
    }

    pub(super) fn accepts_trailers(&self) -> bool {
        self.facts.accepts_trailers
    }

    pub(super) fn names_fields(&self) -> bool {
        self.facts.connection.names_fields()
    }

    pub(super) fn fields(&self) -> &'f [Field<'b>] {
        self.fields
    }

    /// What the fields are parts of.
    pub(super) fn section(&self) -> &'b [u8] {
        self.section
    }
}

impl Facts {
    fn of(line: &RequestLine<'_>, fields: &[Field<'_>]) -> Result<Self, BadRequest> {
        let mut hosts = 0;
        let mut lengths = 0;
        let mut length = None;
        let mut is_chunked = false;
        let mut facts = Self {
            body: BodyLength::NONE,
            connection: ConnectionOptions::default(),
            has_upgrade: false,
            upgrades_to_http2: false,
            accepts_trailers: false,
            expects_continue: false,
            max_forwards: None,
        };
        for field in fields {
            let Some(known) = field.known else {
                continue;
            };
            match known {
                Known::Host => {
                    hosts += 1;
                    if !is_host(field.value) {
                        return Err(BadRequest::Host);
                    }
                }
                Known::ContentLength => {
                    lengths += 1;
                    length = content_length(field.value);
                    if length.is_none() {
                        return Err(BadRequest::ContentLength);
                    }
                }
                Known::TransferEncoding => {
                    let is_known = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
                    if !members(field.value).all(is_known) {
                        return Err(BadRequest::TransferCoding);
                    }
                    // An empty field, chunked applied twice, or two fields.
                    if is_chunked || members(field.value).count() != 1 {
                        return Err(BadRequest::Framing);
                    }
                    is_chunked = true;
                }
                Known::Connection | Known::ProxyConnection => facts.connection.add(field.value),
                Known::Upgrade => {
                    facts.has_upgrade = true;
                    facts.upgrades_to_http2 |= members(field.value).any(is_http2);
                }
                Known::Te => {
                    facts.accepts_trailers |=
                        members(field.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                }
                Known::Expect => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(BadRequest::Expectation);
                    }
                    // RFC 9110 section 10.1.1: HTTP/1.0 clients do not mean it.
                    facts.expects_continue = line.version == Version::Http11;
                }
                Known::MaxForwards if Method::of(line.name) == Method::Options => {
                    let number = content_length(field.value).ok_or(BadRequest::Field)?;
                    facts.max_forwards = Some(u32::try_from(number).unwrap_or(u32::MAX));
                }
                Known::MaxForwards
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyAuthenticationInfo
                | Known::ProxyAuthorization
                | Known::Via
                | Known::XForwardedFor => {}
            }
        }
        let host_is_right = match line.version {
            Version::Http11 => hosts == 1,
            Version::Http10 => hosts <= 1,
        };
        if !host_is_right {
            return Err(BadRequest::Host);
        }
        if lengths > 1 {
            return Err(BadRequest::ContentLength);
        }
        facts.body = match (is_chunked, length) {
            (false, None) => BodyLength::NONE,
            (false, Some(length)) => BodyLength::Exactly(length),
            (true, None) if line.version == Version::Http11 => BodyLength::Chunked,
            (true, _) => return Err(BadRequest::Framing),
        };
        match line.name {
            // RFC 9110 section 9.3.8, and not even without a body: what we
            // would show is what intermediaries added.
            "TRACE" => return Err(BadRequest::Trace),
            // RFC 9110 section 9.3.6.
            "CONNECT" if lengths > 0 || is_chunked => return Err(BadRequest::UnexpectedBody),
            _ => {}
        }
        Ok(facts)
    }
}

/// Whether `value` could be a `Host` (RFC 9110 section 7.2); what it says is
/// not used, because the target decides.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b':'
                    | b'['
                    | b']'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            )
    })
}

/// `h2c`, `h2` and whatever they may be called in drafts.
fn is_http2(protocol: &[u8]) -> bool {
    protocol
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
}

#[cfg(test)]
mod tests {
    use super::super::fields::MAX_FIELDS;
    use super::*;

    /// Text and fields are never given back.
    fn parse(head: &str) -> Result<Request<'static, 'static>, BadRequest> {
        let head: &'static str = head.to_owned().leak();
        Request::parse(head.as_bytes(), Box::leak(Box::default()))
    }

    fn error(head: &str) -> BadRequest {
        match parse(head) {
            Ok(_) => panic!("{head:?} was taken"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_request_is_read() {
        let head = "POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\
                    Expect: 100-Continue\r\n\r\n";
        let request = parse(head).unwrap();
        assert_eq!(request.method_name(), "POST");
        assert_eq!(request.target(), b"http://a.test/x");
        assert_eq!(request.body(), BodyLength::Exactly(3));
        assert!(request.persists() && request.expects_continue());
        assert!(!request.asks_to_upgrade());
    }

    #[test]
    fn lines_that_are_no_request_are_told_apart() {
        for (line, error) in [
            ("GET http://a.test/", BadRequest::Version),
            ("GET http://a.test/ HTTP/2.0", BadRequest::Version),
            ("PRI * HTTP/2.0", BadRequest::Version),
            ("GET http://a.test/ HTTP/1", BadRequest::RequestLine),
            ("GET http://a.test/ http/1.1", BadRequest::RequestLine),
            ("GET  http://a.test/ HTTP/1.1", BadRequest::RequestLine),
            ("GET\thttp://a.test/\tHTTP/1.1", BadRequest::RequestLine),
            ("CONNECT a.test:443 x HTTP/1.1", BadRequest::RequestLine),
            ("G@T http://a.test/ HTTP/1.1", BadRequest::RequestLine),
            (" GET http://a.test/ HTTP/1.1", BadRequest::RequestLine),
            ("GET http://a\rb/ HTTP/1.1", BadRequest::RequestLine),
            (
                "PROXY TCP4 10.0.0.1 10.0.0.2 1111 8080",
                BadRequest::RequestLine,
            ),
            ("", BadRequest::RequestLine),
        ] {
            assert_eq!(RequestLine::parse(line.as_bytes()), Err(error), "{line:?}");
        }
        let later = RequestLine::parse(b"GET / HTTP/1.7").unwrap();
        assert_eq!(later.version, Version::Http11);
    }

    #[test]
    fn what_readers_could_disagree_about_is_refused() {
        use BadRequest as B;
        for (fields, expected) in [
            ("", B::Host),
            ("Host: a\r\nHost: a\r\n", B::Host),
            ("Host: a b\r\n", B::Host),
            ("Host: a,b\r\n", B::Host),
            ("Host: u@a\r\n", B::Host),
            ("Host: a\r\nContent-Length: +3\r\n", B::ContentLength),
            ("Host: a\r\nContent-Length: \r\n", B::ContentLength),
            ("Host: a\r\nContent-Length: 3, 3\r\n", B::ContentLength),
            (
                "Host: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
                B::ContentLength,
            ),
            (
                "Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                B::Framing,
            ),
            (
                "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                B::Framing,
            ),
            (
                "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
                B::Framing,
            ),
            ("Host: a\r\nTransfer-Encoding:\r\n", B::Framing),
            (
                "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
                B::Framing,
            ),
            (
                "Host: a\r\nTransfer-Encoding: identity\r\n",
                B::TransferCoding,
            ),
            (
                "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
                B::TransferCoding,
            ),
            ("Host: a\r\nTransfer-Encoding:\u{b}chunked\r\n", B::Field),
            ("Host: a\r\nExpect: foo\r\n", B::Expectation),
            ("Host: a\r\nX : b\r\n", B::Field),
            ("Host: a\r\n: b\r\n", B::Field),
            ("Host: a\r\nX: a\r\n b\r\n", B::Field),
            ("Host: a\r\nX: a\rb\r\n", B::Field),
            ("Host: a\r\nX: a\0b\r\n", B::Field),
        ] {
            let head = format!("POST http://a/ HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(error(&head), expected, "{fields:?}");
        }
        assert_eq!(
            error("POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            BadRequest::Framing
        );
        assert_eq!(
            error("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
            BadRequest::UnexpectedBody
        );
        assert_eq!(
            error("TRACE http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            BadRequest::Trace
        );
        let many = "a: b\r\n".repeat(MAX_FIELDS);
        assert_eq!(
            error(&format!("GET http://a/ HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
            BadRequest::TooManyFields
        );
    }

    #[test]
    fn websockets_upgrade_and_http2_does_not() {
        let asks = |upgrade: &str| {
            let head = format!(
                "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                 Upgrade: {upgrade}\r\n\r\n"
            );
            parse(&head).unwrap().asks_to_upgrade()
        };
        assert!(asks("websocket"));
        assert!(!asks("h2c"));
        assert!(!asks("websocket, H2C"));
        assert!(!asks("h2c\r\nUpgrade: websocket"));
    }

    #[test]
    fn options_may_end_here() {
        let options = |forwards: &str| {
            let head = format!(
                "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: {forwards}\r\n\r\n"
            );
            parse(&head).map(|request| request.ends_here())
        };
        assert_eq!(options("0"), Ok(true));
        assert_eq!(options("1"), Ok(false));
        assert_eq!(options("x"), Err(BadRequest::Field));
    }
}
