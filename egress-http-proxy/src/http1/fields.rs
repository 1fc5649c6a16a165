//! Field names that mean something to a proxy.

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
