//! Every way in which a request is not served, and its answer: one table.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use egress_runtime::dial::{DialError, DialErrorKind};
use egress_runtime::resolver::LookupError;
use thiserror::Error;

use crate::acl::{Decision, TargetError};
use crate::http1::{BadRequest, BadResponse};

/// Our name in `Proxy-Status` (RFC 9209 section 2).
const NAME: &str = "egress-http-proxy";

/// Why a request is not served.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// The request is no good HTTP.
    #[error("{0}")]
    Request(#[from] BadRequest),
    /// Its target is none.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// It has come through us before.
    #[error("the request came through this proxy before")]
    Loop,
    /// Policy.
    #[error("{0}")]
    Denied(Decision),
    /// The head did not arrive in time.
    #[error("the header did not arrive within EGRESS_HTTP_PROXY_HEADER_TIME")]
    HeaderTime,
    /// The connection to the client broke.
    #[error("the connection to the client broke: {0}")]
    Client(io::Error),
    /// The host's name has no address.
    #[error("cannot resolve the host: {0}")]
    Resolve(#[from] LookupError),
    /// The host cannot be reached.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The upstream's response is no good HTTP.
    #[error("{0}")]
    Response(#[from] BadResponse),
    /// The connection to the upstream broke.
    #[error("the connection to the upstream broke: {0}")]
    Upstream(io::Error),
    /// The upstream closed before its response was whole.
    #[error("the upstream closed the connection before its response was complete")]
    Incomplete,
    /// No byte moved.
    #[error("no byte moved for EGRESS_HTTP_PROXY_IDLE_TIME")]
    Idle,
    /// There are as many connections as there may be.
    #[error("too many connections; see EGRESS_MAX_CONNECTIONS")]
    TooMany,
    /// The client has as many connections as it may have.
    #[error("too many connections of this client; see EGRESS_MAX_CONNECTIONS_PER_CLIENT")]
    TooManyOfClient,
    /// Over HTTP/2 there is only CONNECT.
    #[error("only CONNECT is served over HTTP/2; use HTTP/1.1 for http:// URLs")]
    Http2Forward,
}

impl Refusal {
    /// The status code.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Request(error) => error.status(),
            Self::Target(error) => error.status(),
            Self::Loop => 508,
            Self::Denied(_) => 403,
            Self::HeaderTime | Self::Client(_) => 408,
            Self::Resolve(LookupError::TimedOut) | Self::Idle => 504,
            Self::Dial(error) if error.kind() == DialErrorKind::TimedOut => 504,
            Self::Resolve(_)
            | Self::Dial(_)
            | Self::Response(_)
            | Self::Upstream(_)
            | Self::Incomplete => 502,
            Self::TooMany => 503,
            Self::TooManyOfClient => 429,
            Self::Http2Forward => 501,
        }
    }

    /// The error type of RFC 9209 section 2.3.
    pub(crate) fn proxy_error(&self) -> &'static str {
        match self {
            Self::Request(_) | Self::Target(_) | Self::Http2Forward => "http_request_error",
            Self::Loop => "proxy_loop_detected",
            Self::Denied(decision) => decision.reason().proxy_error(),
            Self::HeaderTime => "http_request_error",
            Self::Client(_) => "connection_terminated",
            Self::Resolve(LookupError::TimedOut) => "dns_timeout",
            Self::Resolve(_) => "dns_error",
            Self::Dial(error) => error.reason(),
            Self::Response(_) => "http_protocol_error",
            Self::Upstream(_) => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::Idle => "http_response_timeout",
            Self::TooMany | Self::TooManyOfClient => "connection_limit_reached",
        }
    }

    /// Whose doing it is, for the access log.
    pub(crate) fn side(&self) -> &'static str {
        match self {
            Self::Request(_)
            | Self::Target(_)
            | Self::Loop
            | Self::HeaderTime
            | Self::Client(_)
            | Self::TooManyOfClient
            | Self::Http2Forward => "client",
            Self::Denied(_) => "policy",
            Self::Resolve(_) => "dns",
            Self::Dial(_)
            | Self::Response(_)
            | Self::Upstream(_)
            | Self::Incomplete
            | Self::Idle => "upstream",
            Self::TooMany => "proxy",
        }
    }

    /// The value of `Proxy-Status`.
    pub(crate) fn proxy_status(&self) -> String {
        let mut value = format!("{NAME}; error={}", self.proxy_error());
        if let Self::Denied(decision) = self {
            // What a decision says is ASCII without quotes, as RFC 9651 section
            // 3.3.3 wants it.
            let _ = write!(value, "; details=\"{decision}\"");
        }
        value
    }

    /// Appends the answer. `to_head` leaves out the body, as HEAD wants it.
    pub(crate) fn write(&self, keeps_open: bool, to_head: bool, out: &mut Vec<u8>) {
        let status = self.status();
        let body = format!("{self}\n");
        // Writing to a vector cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nProxy-Status: {}\r\n",
            reason_phrase(status),
            body.len(),
            self.proxy_status(),
        );
        if matches!(status, 429 | 503) {
            out.extend_from_slice(b"Retry-After: 1\r\n");
        }
        if !keeps_open {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(refusal: &Refusal, keeps_open: bool, to_head: bool) -> String {
        let mut out = Vec::new();
        refusal.write(keeps_open, to_head, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_says_what_happened_and_whose_doing_it_is() {
        let refusal = Refusal::from(BadRequest::Host);
        assert_eq!(
            answer(&refusal, false, false),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 35\r\nCache-Control: no-store\r\n\
             Proxy-Status: egress-http-proxy; error=http_request_error\r\n\
             Connection: close\r\n\r\nexactly one Host field is required\n"
        );
        assert!(answer(&refusal, true, true).ends_with("\r\n\r\n"));
        assert!(!answer(&refusal, true, true).contains("Connection"));
    }

    #[test]
    fn every_status_has_a_phrase() {
        for refusal in [
            Refusal::Request(BadRequest::Version),
            Refusal::Request(BadRequest::TooLarge),
            Refusal::Request(BadRequest::Expectation),
            Refusal::Request(BadRequest::TransferCoding),
            Refusal::Loop,
            Refusal::HeaderTime,
            Refusal::Incomplete,
            Refusal::Idle,
            Refusal::TooMany,
            Refusal::TooManyOfClient,
            Refusal::Http2Forward,
        ] {
            assert_ne!(reason_phrase(refusal.status()), "Error", "{refusal}");
        }
    }
}
