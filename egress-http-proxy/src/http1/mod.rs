//! HTTP/1.1 messages as pure functions over bytes (RFC 9112).
//!
//! | file | what it is |
//! |---|---|
//! | `head` | finds where a head ends, and judges line ends |
//! | `request`, `response` | a head as it was received, checked |
//! | `fields` | field names that mean something to a proxy |
//! | `connection` | the `Connection` field and what it says of a message |
//! | `length` | how long a body is |
//! | `chunked` | the chunked coding, decoded and written anew |
//! | `rewrite` | the head as it is sent on |
//! | `error` | what is wrong with a message, and its status code |
//!
//! Names and values are tokenised by httparse, the parser inside hyper. The
//! rest is ours, because a proxy must see what a server library hides (a
//! `Content-Length` beside `Transfer-Encoding`, line ends) and must pass on what
//! one cannot send (interim responses, a body by splice(2)). Nothing of a head
//! is forwarded as it came: every line is written anew from its parsed parts, or
//! copied where it is found to be what that would give.

mod chunked;
mod connection;
mod error;
mod fields;
mod head;
mod length;
mod request;
mod response;
mod rewrite;

pub use self::chunked::{BadChunk, Chunked, Outgoing, write_chunk, write_last_chunk};
pub use self::error::{BadRequest, BadResponse};
pub use self::fields::Fields;
pub use self::head::{HeadScanner, LineEnds};
pub use self::length::BodyLength;
pub use self::request::{Form, Method, Request, RequestLine, Version, is_token};
pub use self::response::Response;
pub use self::rewrite::{RequestRewrite, ResponseRewrite, Via, write_request, write_response};
