//! The fields of a head, and the names that mean something to a proxy.

use httparse::{EMPTY_HEADER, Header};
use smallvec::SmallVec;

/// Most fields of a head. Browsers send twenty; a head with thousands is an
/// attack on whoever looks at them one by one.
pub(super) const MAX_FIELDS: usize = 128;
/// Fields that nearly every head has room for, without the cost of more.
const USUAL_FIELDS: usize = 24;

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'b> {
    pub(super) name: &'b str,
    pub(super) value: &'b [u8],
    /// What its name means to a proxy.
    pub(super) known: Option<Known>,
    /// Where in the head it stands exactly as it would be written anew:
    /// `NAME: VALUE` and CR LF.
    pub(super) line: Option<Line>,
}

/// A part of a head, by the numbers of its first byte and the one behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Line {
    fn of(head: &[u8], name: &str, value: &[u8]) -> Option<Self> {
        // Both are parts of the head; what is there is looked at all the same.
        let start = name.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
        let end = start + name.len() + 2 + value.len() + 2;
        let (written_name, rest) = head.get(start..end)?.split_at_checked(name.len())?;
        let written_value = rest.strip_prefix(b": ")?.strip_suffix(b"\r\n")?;
        let is_same = written_name.as_ptr() == name.as_ptr()
            && (written_value.is_empty() || written_value.as_ptr() == value.as_ptr());
        let line = Self {
            start: u32::try_from(start).ok()?,
            end: u32::try_from(end).ok()?,
        };
        is_same.then_some(line)
    }
}

/// Room for the fields of one head, in their order. It is a kilobyte and more,
/// so whoever reads a head lends it: what is returned is moved, and this stays.
#[derive(Debug, Default)]
pub struct Fields<'b>(SmallVec<[Field<'b>; USUAL_FIELDS]>);

impl<'b> Fields<'b> {
    /// Room without fields.
    #[must_use]
    pub fn new() -> Self {
        Self(SmallVec::new())
    }

    /// Lets `parse` fill in the fields of `head`, with little room first and
    /// with room for as many as there may be when that does not do. It returns
    /// how many there are, and what else it found.
    pub(super) fn read<T>(
        &mut self,
        head: &[u8],
        mut parse: impl FnMut(&mut [Header<'b>]) -> Result<(usize, T), httparse::Error>,
    ) -> Result<(&[Field<'b>], T), httparse::Error> {
        let mut few = [EMPTY_HEADER; USUAL_FIELDS];
        match parse(&mut few) {
            Err(httparse::Error::TooManyHeaders) => {
                let mut many = [EMPTY_HEADER; MAX_FIELDS];
                let (count, found) = parse(&mut many)?;
                Ok((self.classify(head, &many, count), found))
            }
            parsed => {
                let (count, found) = parsed?;
                Ok((self.classify(head, &few, count), found))
            }
        }
    }

    fn classify(&mut self, head: &[u8], headers: &[Header<'b>], count: usize) -> &[Field<'b>] {
        self.0.clear();
        for &Header { name, value } in headers.iter().take(count) {
            self.0.push(Field {
                name,
                value,
                known: known(name),
                line: Line::of(head, name, value),
            });
        }
        &self.0
    }
}

/// A field that a proxy treats in a way of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    Connection,
    ContentLength,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    ProxyAuthenticationInfo,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
}

/// Which of them `name` is.
pub(super) fn known(name: &str) -> Option<Known> {
    // By length first: most fields are told apart without reading a letter.
    let candidates: &[(&str, Known)] = match name.len() {
        2 => &[("te", Known::Te)],
        3 => &[("via", Known::Via)],
        4 => &[("host", Known::Host)],
        6 => &[("expect", Known::Expect)],
        7 => &[("upgrade", Known::Upgrade)],
        10 => &[
            ("connection", Known::Connection),
            ("keep-alive", Known::KeepAlive),
        ],
        12 => &[("max-forwards", Known::MaxForwards)],
        14 => &[
            ("content-length", Known::ContentLength),
            ("http2-settings", Known::Http2Settings),
        ],
        15 => &[("x-forwarded-for", Known::XForwardedFor)],
        16 => &[("proxy-connection", Known::ProxyConnection)],
        17 => &[("transfer-encoding", Known::TransferEncoding)],
        19 => &[("proxy-authorization", Known::ProxyAuthorization)],
        25 => &[("proxy-authentication-info", Known::ProxyAuthenticationInfo)],
        _ => &[],
    };
    candidates
        .iter()
        .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
        .map(|&(_, known)| known)
}

/// Fields that frame, route or authenticate a message and so may not stand in
/// a trailer section (RFC 9110 section 6.5.1).
pub(super) fn may_trail(name: &str) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "proxy-authenticate",
        "set-cookie",
        "trailer",
        "www-authenticate",
    ];
    known(name).is_none() && !NEVER.iter().any(|never| never.eq_ignore_ascii_case(name))
}

/// The members of a comma-separated list, empty ones left out (RFC 9110
/// section 5.6.1).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(known("Transfer-ENCODING"), Some(Known::TransferEncoding));
        assert_eq!(known("HTTP2-Settings"), Some(Known::Http2Settings));
        assert_eq!(known("keep-alive"), Some(Known::KeepAlive));
        assert_eq!(known("Content-Type"), None);
        assert_eq!(known(""), None);
    }

    #[test]
    fn a_line_is_known_where_it_is_what_we_would_write() {
        let head = b"A: b\r\nC:d\r\nE:  f\r\nG: h \r\nI: \r\nJ:\r\nK: l\n\r\n";
        let mut fields = Fields::new();
        let (fields, ()) = fields
            .read(head, |room| match httparse::parse_headers(head, room)? {
                httparse::Status::Complete((_, fields)) => Ok((fields.len(), ())),
                httparse::Status::Partial => Err(httparse::Error::NewLine),
            })
            .unwrap();
        let lines = fields.iter().map(|field| {
            let line = field.line?;
            head.get(line.start as usize..line.end as usize)
        });
        let none = None::<&[u8]>;
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                Some(&b"A: b\r\n"[..]),
                none,
                none,
                none,
                Some(b"I: \r\n"),
                none,
                none
            ]
        );
    }

    #[test]
    fn what_frames_or_routes_may_not_trail() {
        assert!(may_trail("Grpc-Status"));
        assert!(may_trail("X-Checksum"));
        for name in ["Host", "content-length", "Set-Cookie", "Authorization"] {
            assert!(!may_trail(name), "{name}");
        }
    }

    #[test]
    fn lists_lose_their_empty_members() {
        let list: Vec<&[u8]> = members(b", a ,\tb,,c ").collect();
        assert_eq!(list, [&b"a"[..], b"b", b"c"]);
    }
}
