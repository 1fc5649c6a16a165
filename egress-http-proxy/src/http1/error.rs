//! What is wrong with a message.

use thiserror::Error;

/// Why a request is refused before anything is decided about its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadRequest {
    /// The first byte cannot begin a method: TLS on the clear-text port, for
    /// instance.
    #[error("this is not HTTP; a client that speaks TLS to the proxy needs the TLS port")]
    NotHttp,
    /// A line that ends with LF alone, or a CR elsewhere (RFC 9112 section 2.2).
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// Not `METHOD SP TARGET SP VERSION`.
    #[error("the request line is not 'METHOD TARGET HTTP/1.1'")]
    RequestLine,
    /// HTTP/2 or later, or HTTP/0.9.
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    /// A field line that is none (RFC 9112 section 5).
    #[error("a header field is malformed")]
    Field,
    /// More than 128 fields.
    #[error("the header has too many fields")]
    TooManyFields,
    /// More bytes than the limit.
    #[error("the header is longer than EGRESS_HTTP_PROXY_HEADER_BYTES")]
    TooLarge,
    /// HTTP/1.1 without `Host`, or with more than one (RFC 9112 section 3.2).
    #[error("exactly one Host field is required")]
    Host,
    /// A `Content-Length` that is no number, or several (RFC 9110 section 8.6).
    #[error("the Content-Length is not one decimal number")]
    ContentLength,
    /// `Transfer-Encoding` beside `Content-Length`, or in HTTP/1.0 (RFC 9112
    /// section 6.1).
    #[error("Transfer-Encoding contradicts the Content-Length or the HTTP version")]
    Framing,
    /// A transfer coding besides `chunked` (RFC 9112 section 6.1).
    #[error("the transfer coding is not 'chunked'")]
    TransferCoding,
    /// An expectation besides `100-continue` (RFC 9110 section 10.1.1).
    #[error("the expectation is not '100-continue'")]
    Expectation,
    /// A malformed chunk (RFC 9112 section 7.1).
    #[error("the chunked body is malformed")]
    Chunk,
    /// A body announced for a method that has none: CONNECT, TRACE.
    #[error("this method has no body")]
    UnexpectedBody,
    /// TRACE would show credentials (RFC 9110 section 9.3.8).
    #[error("TRACE is not supported")]
    Trace,
}

impl BadRequest {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooManyFields | Self::TooLarge => 431,
            Self::TransferCoding | Self::Trace => 501,
            Self::Expectation => 417,
            Self::NotHttp
            | Self::LineEnd
            | Self::RequestLine
            | Self::Field
            | Self::Host
            | Self::ContentLength
            | Self::Framing
            | Self::Chunk
            | Self::UnexpectedBody => 400,
        }
    }
}

/// Why a response cannot be passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadResponse {
    /// No status line, or a field that is none.
    #[error("the upstream's response is malformed")]
    Head,
    /// More bytes than the limit.
    #[error("the header of the upstream's response is longer than EGRESS_HTTP_PROXY_HEADER_BYTES")]
    TooLarge,
    /// Its length cannot be told, or is told twice.
    #[error("the length of the upstream's response cannot be told")]
    Framing,
    /// A malformed chunk.
    #[error("the chunked body of the upstream's response is malformed")]
    Chunk,
    /// 101 without having been asked.
    #[error("the upstream switched protocols without being asked to")]
    Upgrade,
}
