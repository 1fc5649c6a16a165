//! Heads as they are sent on.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;

use super::connection::nominates;
use super::fields::{Field, Known, Line, members};
use super::length::BodyLength;
use super::request::{Request, Version};
use super::response::Response;

/// Our name in `Via` (RFC 9110 section 7.6.3), by which a loop is known. It
/// differs from process to process, so that a chain of proxies is no loop.
#[derive(Clone, Debug)]
pub struct Via {
    name: Box<str>,
    /// The field line for a message that was received in version 1.0 or 1.1.
    lines: [Box<[u8]>; 2],
}

impl Via {
    /// The name of the process that drew `number` at random.
    #[must_use]
    pub fn new(number: u64) -> Self {
        let name = format!("egress-http-proxy-{number:016x}");
        let line = |version| format!("Via: {version} {name}\r\n").into_bytes().into();
        Self {
            lines: ["1.0", "1.1"].map(line),
            name: name.into(),
        }
    }

    /// Whether `request` came through us before.
    #[must_use]
    pub fn is_in(&self, request: &Request<'_, '_>) -> bool {
        let fields = request.fields().iter();
        let lines = fields.filter(|field| field.known == Some(Known::Via));
        lines.flat_map(|field| members(field.value)).any(|member| {
            let mut words = member.split(|&byte| byte == b' ').skip(1);
            words.any(|word| word == self.name.as_bytes())
        })
    }

    fn line(&self, received: Version) -> &[u8] {
        let [http10, http11] = &self.lines;
        match received {
            Version::Http10 => http10,
            Version::Http11 => http11,
        }
    }
}

/// Field lines on their way out. Those that stand in the head as they would be
/// written, one behind the other, are copied together.
struct Lines<'b> {
    head: &'b [u8],
    run: Line,
}

impl<'b> Lines<'b> {
    fn of(head: &'b [u8]) -> Self {
        Self {
            head,
            run: Line { start: 0, end: 0 },
        }
    }

    fn write(&mut self, field: &Field<'_>, out: &mut Vec<u8>) {
        match field.line {
            Some(line) if line.start == self.run.end => self.run.end = line.end,
            Some(line) => {
                self.flush(out);
                self.run = line;
            }
            None => {
                self.flush(out);
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        let Line { start, end } = self.run;
        if start < end {
            let lines = self.head.get(start as usize..end as usize);
            out.extend_from_slice(lines.unwrap_or_default());
            self.run.start = end;
        }
    }
}

/// What a request is sent on with.
#[derive(Clone, Copy)]
pub struct RequestRewrite<'r> {
    /// The value of `Host`: the target's.
    pub host: &'r dyn fmt::Display,
    /// The target in origin-form, or `*` (RFC 9112 section 3.2).
    pub origin_form: &'r [u8],
    /// Our name.
    pub via: &'r Via,
    /// Appended to `X-Forwarded-For`.
    pub forwarded_for: Option<IpAddr>,
}

/// Appends the head of `request` as the upstream gets it.
pub fn write_request(request: &Request<'_, '_>, rewrite: &RequestRewrite<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method_name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(rewrite.origin_form);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", rewrite.host);
    out.extend_from_slice(b"\r\n");
    let upgrades = request.asks_to_upgrade();
    let mut forwarded_for = false;
    let mut lines = Lines::of(request.section());
    for field in request.fields() {
        let own_hop = |known: Option<Known>| match known {
            None => {
                request.names_fields()
                    && request.fields().iter().any(|line| {
                        matches!(line.known, Some(Known::Connection | Known::ProxyConnection))
                            && nominates(line.value, field.name)
                    })
            }
            Some(known) => match known {
                Known::ContentLength
                | Known::TransferEncoding
                | Known::Expect
                | Known::Via
                | Known::XForwardedFor => false,
                Known::Upgrade => !upgrades,
                // Host and Max-Forwards are written by us.
                Known::Host
                | Known::MaxForwards
                | Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyAuthenticationInfo
                | Known::ProxyAuthorization
                | Known::ProxyConnection
                | Known::Te => true,
            },
        };
        if own_hop(field.known) {
            continue;
        }
        if field.known == Some(Known::XForwardedFor)
            && !forwarded_for
            && let Some(client) = rewrite.forwarded_for
        {
            forwarded_for = true;
            lines.flush(out);
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value);
            let _ = write!(out, ", {client}\r\n");
            continue;
        }
        lines.write(field, out);
    }
    lines.flush(out);
    if let Some(client) = rewrite.forwarded_for
        && !forwarded_for
    {
        let _ = write!(out, "X-Forwarded-For: {client}\r\n");
    }
    if let Some(forwards) = request.max_forwards() {
        let _ = write!(out, "Max-Forwards: {}\r\n", forwards.saturating_sub(1));
    }
    out.extend_from_slice(rewrite.via.line(request.version()));
    let connection: &[u8] = match (upgrades, request.accepts_trailers()) {
        (false, false) => b"",
        (true, false) => b"Connection: Upgrade\r\n",
        (false, true) => b"TE: trailers\r\nConnection: TE\r\n",
        (true, true) => b"TE: trailers\r\nConnection: TE, Upgrade\r\n",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
}

/// What a response is sent on with.
#[derive(Clone, Copy)]
pub struct ResponseRewrite<'r> {
    /// Our name.
    pub via: &'r Via,
    /// How the body is framed towards the client.
    pub body: BodyLength,
    /// Whether the client's connection stays open for another request.
    pub keeps_open: bool,
    /// The client's version.
    pub client: Version,
}

/// Appends the head of `response` as the client gets it.
pub fn write_response(
    response: &Response<'_, '_>,
    rewrite: &ResponseRewrite<'_>,
    out: &mut Vec<u8>,
) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(response.status()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(response.reason().as_bytes());
    out.extend_from_slice(b"\r\n");
    let switches = response.status() == 101;
    let mut lines = Lines::of(response.head());
    for field in response.fields() {
        let own_hop = match field.known {
            None => {
                response.names_fields()
                    && response.fields().iter().any(|line| {
                        line.known == Some(Known::Connection) && nominates(line.value, field.name)
                    })
            }
            Some(known) => match known {
                Known::Upgrade => !switches,
                Known::ContentLength
                | Known::TransferEncoding
                | Known::Connection
                | Known::Http2Settings
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te => true,
                Known::Expect
                | Known::Host
                | Known::MaxForwards
                | Known::ProxyAuthenticationInfo
                | Known::ProxyAuthorization
                | Known::Via
                | Known::XForwardedFor => false,
            },
        };
        // The length of a body that is not sent (HEAD, 304) is information.
        let informs = field.known == Some(Known::ContentLength)
            && response.body().is_none()
            && !matches!(response.status(), 100..200 | 204);
        if !own_hop || informs {
            lines.write(field, out);
        }
    }
    lines.flush(out);
    match rewrite.body {
        BodyLength::Exactly(length) if !response.body().is_none() => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(digits.format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyLength::Exactly(_) | BodyLength::UntilClose => {}
    }
    out.extend_from_slice(rewrite.via.line(Version::Http11));
    let connection: &[u8] = match (response.status(), rewrite.keeps_open, rewrite.client) {
        (101, ..) => b"Connection: Upgrade\r\n",
        (100..200, ..) | (_, true, Version::Http11) => b"",
        (_, true, Version::Http10) => b"Connection: keep-alive\r\n",
        (_, false, _) => b"Connection: close\r\n",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::fields::Fields;
    use super::super::request::Method;
    use super::*;

    fn sent(head: &str, forwarded_for: Option<IpAddr>) -> String {
        let mut room = Fields::new();
        let request = Request::parse(head.as_bytes(), &mut room).unwrap();
        let mut out = Vec::new();
        let rewrite = RequestRewrite {
            host: &"a.test:81",
            origin_form: b"/x?y",
            via: &Via::new(7),
            forwarded_for,
        };
        write_request(&request, &rewrite, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn answered(head: &str, method: Method, rewrite: impl Fn(&mut ResponseRewrite<'_>)) -> String {
        let mut room = Fields::new();
        let response = Response::parse(head.as_bytes(), method, &mut room).unwrap();
        let via = Via::new(7);
        let mut how = ResponseRewrite {
            via: &via,
            body: response.body(),
            keeps_open: true,
            client: Version::Http11,
        };
        rewrite(&mut how);
        let mut out = Vec::new();
        write_response(&response, &how, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hop_by_hop_fields_stay_and_framing_goes_on() {
        let head = "POST http://A.test:81/x?y HTTP/1.1\r\nHost: evil.test\r\n\
                    Connection: close, X-Hop, Content-Length, Host\r\nX-Hop: 1\r\nX-End: 2\r\n\
                    Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
                    Keep-Alive: timeout=5\r\nTE: trailers\r\nContent-Length: 3\r\n\
                    Via: 1.0 first\r\n\r\n";
        assert_eq!(
            sent(head, None),
            "POST /x?y HTTP/1.1\r\nHost: a.test:81\r\nX-End: 2\r\nContent-Length: 3\r\n\
             Via: 1.0 first\r\nVia: 1.1 egress-http-proxy-0000000000000007\r\n\
             TE: trailers\r\nConnection: TE\r\n\r\n"
        );
    }

    #[test]
    fn lines_are_written_anew_however_they_came() {
        let head = "GET http://a/ HTTP/1.1\r\nA: 1\r\nB: 2\r\nHost: a\r\nC:3\r\nD: \r\n\
                    E:  5\r\nF: 6\r\nConnection: close\r\nG: 7\t\r\nH: 8\r\nI:\r\n\r\n";
        assert_eq!(
            sent(head, None),
            "GET /x?y HTTP/1.1\r\nHost: a.test:81\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: \r\n\
             E: 5\r\nF: 6\r\nG: 7\r\nH: 8\r\nI: \r\n\
             Via: 1.1 egress-http-proxy-0000000000000007\r\n\r\n"
        );
        let answer = "HTTP/1.1 200 OK\nA: 1\r\nB: 2\r\nKeep-Alive: x\r\nC: 3\n\
                      D: 4\r\nContent-Length: 3\r\nE: 5\r\n\r\n";
        assert_eq!(
            answered(answer, Method::Idempotent, |_| ()),
            "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\n\
             Content-Length: 3\r\nVia: 1.1 egress-http-proxy-0000000000000007\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn a_copied_line_is_what_would_be_written(
            lines in vec(
                (
                    select(vec!["A", "X-Some", "Keep-Alive", "Server"]),
                    select(vec![": ", ":", ":  ", ":\t"]),
                    "([!-~]([ -~]{0,9}[!-~])?)?",
                    select(vec!["\r\n", "\n", " \r\n", "\t\n"]),
                ),
                0..12,
            ),
        ) {
            let mut head = "HTTP/1.1 204 No Content\r\n".to_owned();
            let mut expected = head.clone();
            for (name, colon, value, end) in &lines {
                head += &[name, colon, value.as_str(), end].concat();
                if *name != "Keep-Alive" {
                    expected += &format!("{name}: {value}\r\n");
                }
            }
            head += "\r\n";
            expected += "Via: 1.1 egress-http-proxy-0000000000000007\r\n\r\n";
            prop_assert_eq!(answered(&head, Method::Idempotent, |_| ()), expected);
        }
    }

    #[test]
    fn the_client_is_named_only_when_asked() {
        let client = Some("10.0.0.7".parse().unwrap());
        let head = "GET http://a/ HTTP/1.0\r\n\r\n";
        assert!(sent(head, client).contains("\r\nX-Forwarded-For: 10.0.0.7\r\n"));
        assert!(!sent(head, None).contains("10.0.0.7"));
        let head = "GET http://a/ HTTP/1.0\r\nx-forwarded-for: 1.2.3.4\r\n\r\n";
        assert!(sent(head, client).contains("\r\nx-forwarded-for: 1.2.3.4, 10.0.0.7\r\n"));
    }

    #[test]
    fn an_upgrade_keeps_its_fields() {
        let head = "GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
        assert!(sent(head, None).contains("\r\nUpgrade: websocket\r\n"));
        assert!(sent(head, None).ends_with("\r\nConnection: Upgrade\r\n\r\n"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                      Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        assert_eq!(
            answered(answer, Method::Idempotent, |_| ()),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: x\r\nVia: 1.1 egress-http-proxy-0000000000000007\r\n\
             Connection: Upgrade\r\n\r\n"
        );
    }

    #[test]
    fn responses_are_framed_for_the_client() {
        let head = "HTTP/1.0 200 Fine\nContent-Length: 3\nConnection: X-Hop\nX-Hop: 1\n\n";
        assert_eq!(
            answered(head, Method::Idempotent, |_| ()),
            "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\
             Via: 1.1 egress-http-proxy-0000000000000007\r\n\r\n"
        );
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let old = answered(head, Method::Idempotent, |how| {
            how.body = BodyLength::UntilClose;
            how.keeps_open = false;
            how.client = Version::Http10;
        });
        assert!(
            !old.contains("chunked") && old.contains("Connection: close"),
            "{old}"
        );
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n";
        assert!(answered(head, Method::Head, |_| ()).contains("Content-Length: 3000"));
    }

    #[test]
    fn a_loop_is_known_by_our_name() {
        let via = Via::new(7);
        let head =
            |via: &str| format!("GET http://a/ HTTP/1.1\r\nHost: a\r\nVia: 1.0 x, {via}\r\n\r\n");
        let is_loop = |text: &str| {
            let (head, mut room) = (head(text), Fields::new());
            via.is_in(&Request::parse(head.as_bytes(), &mut room).unwrap())
        };
        assert!(is_loop("1.1 egress-http-proxy-0000000000000007"));
        assert!(is_loop("HTTP/1.1 egress-http-proxy-0000000000000007 (us)"));
        assert!(!is_loop("1.1 egress-http-proxy-0000000000000008"));
    }
}
