//! What a request asks for, in one canonical form.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};

use egress_config::{DomainName, DomainNameError, Port, PortError};
use thiserror::Error;

use super::inet_aton;
use super::judged::canonical;

/// The port of an `http` URI that names none (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

/// The host and port of a request. Every spelling of one destination reads as
/// the same target: names in lower case without the trailing dot, IPv4
/// addresses whatever `inet_aton` form they had.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    host: Host,
    port: Port,
}

/// A name to resolve, or an address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// A DNS name. It is absolute: no search list applies.
    Name(DomainName),
    /// An address literal; an IPv4 address never in IPv6 dress. What is dialled
    /// for it is the policy's answer.
    Address(IpAddr),
}

impl Target {
    /// A target made from its parts. An address gets its one spelling.
    #[must_use]
    pub fn new(host: Host, port: Port) -> Self {
        let host = match host {
            Host::Name(name) => Host::Name(name),
            Host::Address(address) => Host::Address(canonical(address)),
        };
        Self { host, port }
    }

    /// Reads the authority-form of CONNECT, `host:port` (RFC 9112 section
    /// 3.2.3). The port is required.
    ///
    /// # Errors
    /// [`TargetError`], which the client gets as its status.
    pub fn from_authority(authority: &[u8]) -> Result<Self, TargetError> {
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(text) => parse_port(text)?,
            None => return Err(TargetError::NoPort),
        };
        Ok(Self {
            host: parse_host(host)?,
            port,
        })
    }

    /// Where to connect to.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The name, unless the host is an address.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The target as the `Host` field of an `http` request says it: without
    /// the port when it is 80 (RFC 9110 section 7.2).
    pub fn host_field(&self) -> impl fmt::Display {
        HostField(self)
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The name, the IPv4 address, or the IPv6 address in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

struct HostField<'a>(&'a Target);

impl fmt::Display for HostField<'_> {
    /// Every forwarded request has one, so it is put together without the
    /// formatter's widths and precisions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = itoa::Buffer::new();
        match &self.0.host {
            Host::Name(name) => f.write_str(name.as_str())?,
            Host::Address(IpAddr::V4(address)) => {
                let [first, rest @ ..] = address.octets();
                f.write_str(digits.format(first))?;
                for octet in rest {
                    f.write_char('.')?;
                    f.write_str(digits.format(octet))?;
                }
            }
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        match self.0.port() {
            HTTP_PORT => Ok(()),
            port => {
                f.write_char(':')?;
                f.write_str(digits.format(port))
            }
        }
    }
}

/// An absolute-form request target, `http://host[:port][/path][?query]` (RFC
/// 9112 section 3.2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AbsoluteForm<'a> {
    target: Target,
    path_and_query: &'a [u8],
}

impl<'a> AbsoluteForm<'a> {
    /// Reads a request target in absolute-form. The path and the query pass
    /// as they are, but a fragment, a blank or a control character is refused.
    ///
    /// # Errors
    /// [`TargetError`], which the client gets as its status.
    pub fn parse(uri: &'a [u8]) -> Result<Self, TargetError> {
        let rest = strip_http_scheme(uri)?;
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        for byte in path_and_query {
            match byte {
                b'#' => return Err(TargetError::Fragment),
                byte if byte.is_ascii_control() || *byte == b' ' => {
                    return Err(TargetError::Character);
                }
                _ => {}
            }
        }
        let (host, port) = split_authority(authority)?;
        let port = match port {
            // RFC 3986 section 3.2.3 allows the colon without a port.
            None | Some([]) => DEFAULT_PORT,
            Some(text) => parse_port(text)?,
        };
        Ok(Self {
            target: Target {
                host: parse_host(host)?,
                port,
            },
            path_and_query,
        })
    }

    /// Host and port.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Host and port, alone.
    #[must_use]
    pub fn into_target(self) -> Target {
        self.target
    }

    /// What stands behind the authority: empty, or starting with `/` or `?`.
    /// The origin-form for the upstream has a `/` in front where there is
    /// none (RFC 9112 section 3.2.1).
    #[must_use]
    pub fn path_and_query(&self) -> &'a [u8] {
        self.path_and_query
    }
}

const DEFAULT_PORT: Port = match Port::new(HTTP_PORT) {
    Some(port) => port,
    None => unreachable!(),
};

/// Why a request target is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TargetError {
    /// `/path`: a request for an origin server, not for a proxy.
    #[error(
        "client sent an origin-form target; a proxy needs http://HOST/PATH or CONNECT HOST:PORT"
    )]
    OriginForm,
    /// Neither a scheme nor a path.
    #[error("client sent no absolute URI; write http://HOST[:PORT]/PATH")]
    NotAbsolute,
    /// `ftp://`, `https://`, `ws://`.
    #[error("client asked for a scheme other than http; use CONNECT for anything else")]
    Scheme,
    /// `http:///path`, `:443`.
    #[error("client sent a target without a host")]
    EmptyHost,
    /// `user@host` (RFC 9110 section 4.2.4).
    #[error("client sent user information in the target; remove it")]
    UserInfo,
    /// `%2e` in a host: never decoded, so that nobody can decode it later.
    #[error("client sent a percent-encoded host; write the name itself")]
    PercentEncoding,
    /// `#` (RFC 9112 section 3.2).
    #[error("client sent a fragment in the target; remove it")]
    Fragment,
    /// A byte that no URI may hold.
    #[error("client sent a blank or control character in the target")]
    Character,
    /// A host of bytes outside ASCII.
    #[error("client sent a host that is not ASCII; write its xn-- form (RFC 5891)")]
    NotAscii,
    /// `[fe80::1%25eth0]`.
    #[error("client sent an IPv6 address with a zone; remove it")]
    Zone,
    /// Brackets around something else, or missing around an IPv6 address.
    #[error("client sent no IPv6 address in brackets where one belongs; write [ADDRESS]:PORT")]
    Brackets,
    /// `300.1.1.1`, `1.2.3.4.5`, `a.0x1`.
    #[error("client sent a host that ends in a number but is no IPv4 address")]
    Ipv4,
    /// Not a DNS name.
    #[error("client sent a bad host: {0}")]
    Name(DomainNameError),
    /// CONNECT without a port (RFC 9110 section 9.3.6).
    #[error("client sent CONNECT without a port; write HOST:PORT")]
    NoPort,
    /// No port number.
    #[error("client sent a bad port: {0}")]
    Port(PortError),
}

impl TargetError {
    /// The status code of the answer: 501 for a scheme that this proxy does
    /// not speak, else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Scheme => 501,
            _ => 400,
        }
    }
}

fn strip_http_scheme(uri: &[u8]) -> Result<&[u8], TargetError> {
    if uri.starts_with(b"/") {
        return Err(TargetError::OriginForm);
    }
    let colon = uri
        .iter()
        .position(|&byte| byte == b':')
        .ok_or(TargetError::NotAbsolute)?;
    let (scheme, rest) = uri
        .split_at_checked(colon)
        .ok_or(TargetError::NotAbsolute)?;
    if scheme.eq_ignore_ascii_case(b"http") {
        rest.strip_prefix(b"://").ok_or(TargetError::NotAbsolute)
    } else if is_scheme(scheme) && rest.starts_with(b"://") {
        Err(TargetError::Scheme)
    } else {
        Err(TargetError::NotAbsolute)
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Splits `host[:port]`; the host keeps its brackets.
fn split_authority(authority: &[u8]) -> Result<(&[u8], Option<&[u8]>), TargetError> {
    if authority.contains(&b'@') {
        return Err(TargetError::UserInfo);
    }
    let host_end = if authority.starts_with(b"[") {
        let bracket = authority.iter().position(|&byte| byte == b']');
        bracket.ok_or(TargetError::Brackets)? + 1
    } else {
        let colon = authority.iter().position(|&byte| byte == b':');
        colon.unwrap_or(authority.len())
    };
    let (host, rest) = authority
        .split_at_checked(host_end)
        .ok_or(TargetError::Brackets)?;
    match rest {
        [] => Ok((host, None)),
        [b':', port @ ..] => {
            // `::1:80`: an IPv6 address needs its brackets.
            if !host.starts_with(b"[") && port.contains(&b':') {
                return Err(TargetError::Brackets);
            }
            Ok((host, Some(port)))
        }
        _ => Err(TargetError::Brackets),
    }
}

fn parse_port(text: &[u8]) -> Result<Port, TargetError> {
    std::str::from_utf8(text)
        .map_err(|_| PortError::NotANumber)
        .and_then(str::parse)
        .map_err(TargetError::Port)
}

fn parse_host(host: &[u8]) -> Result<Host, TargetError> {
    if host.is_empty() {
        return Err(TargetError::EmptyHost);
    }
    if !host.is_ascii() {
        return Err(TargetError::NotAscii);
    }
    let host = std::str::from_utf8(host).map_err(|_| TargetError::NotAscii)?;
    if let Some(inner) = host.strip_prefix('[') {
        return parse_bracketed(inner.strip_suffix(']').ok_or(TargetError::Brackets)?);
    }
    if host.contains('%') {
        return Err(TargetError::PercentEncoding);
    }
    let without_dot = host.strip_suffix('.').unwrap_or(host);
    if inet_aton::ends_in_number(without_dot) {
        let address = inet_aton::parse_ipv4(without_dot).ok_or(TargetError::Ipv4)?;
        return Ok(Host::Address(address.into()));
    }
    host.parse().map(Host::Name).map_err(TargetError::Name)
}

fn parse_bracketed(text: &str) -> Result<Host, TargetError> {
    if text.contains('%') {
        return Err(TargetError::Zone);
    }
    let address: Ipv6Addr = text.parse().map_err(|_| TargetError::Brackets)?;
    Ok(Host::Address(canonical(address.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Result<String, TargetError> {
        Target::from_authority(text.as_bytes()).map(|target| target.to_string())
    }

    fn absolute(text: &str) -> Result<(String, String), TargetError> {
        AbsoluteForm::parse(text.as_bytes()).map(|form| {
            (
                form.target().host_field().to_string(),
                String::from_utf8(form.path_and_query().to_vec()).unwrap(),
            )
        })
    }

    #[test]
    fn authorities_are_canonical() {
        for (text, canonical) in [
            ("a.test:443", "a.test:443"),
            ("EXAMPLE.com.:443", "example.com:443"),
            ("_dmarc.a.test:1", "_dmarc.a.test:1"),
            ("localhost:65535", "localhost:65535"),
            ("2130706433:80", "127.0.0.1:80"),
            ("127.0.0.1.:80", "127.0.0.1:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
            ("0:80", "0.0.0.0:80"),
            ("[::ffff:7f00:1]:80", "127.0.0.1:80"),
            ("[::127.0.0.1]:80", "127.0.0.1:80"),
            ("[::]:80", "[::]:80"),
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("[64:ff9b::127.0.0.1]:80", "[64:ff9b::7f00:1]:80"),
            ("cafe.de:80", "cafe.de:80"),
        ] {
            assert_eq!(authority(text).as_deref(), Ok(canonical), "{text}");
        }
    }

    #[test]
    fn each_bad_authority_says_why() {
        use TargetError as E;
        for (text, error) in [
            ("", E::NoPort),
            ("a.test", E::NoPort),
            (":443", E::EmptyHost),
            ("a.test:", E::Port(PortError::NotANumber)),
            ("a.test:0", E::Port(PortError::OutOfRange)),
            ("a.test:65536", E::Port(PortError::OutOfRange)),
            ("a.test:080", E::Port(PortError::LeadingZero)),
            ("a.test:abc", E::Port(PortError::NotANumber)),
            ("a.test:443 x", E::Port(PortError::NotANumber)),
            ("a.test:é", E::Port(PortError::NotANumber)),
            ("u@a.test:443", E::UserInfo),
            ("http://a.test:443", E::Brackets),
            ("http://a.test", E::Port(PortError::NotANumber)),
            ("::1:80", E::Brackets),
            ("[::1:80", E::Brackets),
            ("[::1]", E::NoPort),
            ("[::1]x:80", E::Brackets),
            ("[]:80", E::Brackets),
            ("[127.0.0.1]:80", E::Brackets),
            ("[v1.x]:80", E::Brackets),
            ("[fe80::1%25eth0]:80", E::Zone),
            ("www.example.com%2e:80", E::PercentEncoding),
            ("bücher.example:80", E::NotAscii),
            ("127。0。0。1:80", E::NotAscii),
            ("300.1.1.1:80", E::Ipv4),
            ("1.2.3.4.5:80", E::Ipv4),
            ("08:80", E::Ipv4),
            ("a.0x1f:80", E::Ipv4),
            (".a.test:80", E::Name(DomainNameError::EmptyLabel)),
            ("a..test:80", E::Name(DomainNameError::EmptyLabel)),
            ("a.test..:80", E::Name(DomainNameError::EmptyLabel)),
            (".:80", E::Name(DomainNameError::Empty)),
            ("a b.test:80", E::Name(DomainNameError::Character(' '))),
            ("a\\.test:80", E::Name(DomainNameError::Character('\\'))),
            ("a\0.test:80", E::Name(DomainNameError::Character('\0'))),
            ("*.test:80", E::Name(DomainNameError::Character('*'))),
        ] {
            assert_eq!(authority(text), Err(error), "{text:?}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn absolute_forms_are_canonical() {
        for (text, host, path) in [
            ("http://a.test", "a.test", ""),
            ("HTTP://A.test/", "a.test", "/"),
            ("http://a.test:/x", "a.test", "/x"),
            ("http://a.test:80/x", "a.test", "/x"),
            ("http://a.test:8080/x?y", "a.test:8080", "/x?y"),
            ("http://a.test?@evil.test/", "a.test", "?@evil.test/"),
            (
                "http://a.test/http://b.test:1/@x",
                "a.test",
                "/http://b.test:1/@x",
            ),
            ("http://[2001:db8::1]/", "[2001:db8::1]", "/"),
            ("http://[2001:db8::1]:81/", "[2001:db8::1]:81", "/"),
            ("http://127.1/%00", "127.0.0.1", "/%00"),
        ] {
            assert_eq!(
                absolute(text),
                Ok((host.to_owned(), path.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn each_bad_absolute_form_says_why() {
        use TargetError as E;
        for (text, error, status) in [
            ("/", E::OriginForm, 400),
            ("*", E::NotAbsolute, 400),
            ("", E::NotAbsolute, 400),
            ("a.test:80", E::NotAbsolute, 400),
            ("http:/a.test/", E::NotAbsolute, 400),
            ("http:a.test", E::NotAbsolute, 400),
            ("mailto:a@b", E::NotAbsolute, 400),
            ("https://a.test/", E::Scheme, 501),
            ("ftp://a.test/", E::Scheme, 501),
            ("ws://a.test/", E::Scheme, 501),
            ("file:///etc/passwd", E::Scheme, 501),
            ("http:///x", E::EmptyHost, 400),
            ("http://", E::EmptyHost, 400),
            ("http://:80/", E::EmptyHost, 400),
            ("http://evil.test@a.test/", E::UserInfo, 400),
            ("http://a.test#.evil.test/", E::Fragment, 400),
            ("http://evil.test#@a.test/", E::Fragment, 400),
            ("http://a.test/#x", E::Fragment, 400),
            ("http://a.test/a b", E::Character, 400),
            ("http://a.test/\u{7f}", E::Character, 400),
            ("http://a.test\\@b.test/", E::UserInfo, 400),
            ("http://a.test:0/", E::Port(PortError::OutOfRange), 400),
            ("http://a.test:+80/", E::Port(PortError::NotANumber), 400),
            ("http://a.test:80abc/", E::Port(PortError::NotANumber), 400),
        ] {
            assert_eq!(absolute(text), Err(error), "{text:?}");
            assert_eq!(error.status(), status, "{text:?}");
        }
    }

    #[test]
    fn a_longest_name_is_one_and_nothing_longer() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(authority(&format!("{longest}:1")).is_ok());
        assert!(authority(&format!("{longest}.:1")).is_ok());
        assert_eq!(
            authority(&format!("{longest}a:1")),
            Err(TargetError::Name(DomainNameError::TooLong))
        );
    }
}
