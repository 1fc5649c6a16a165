//! A response's head as it was received, checked.

use super::connection::ConnectionOptions;
use super::error::BadResponse;
use super::fields::{Field, Fields, Known, members};
use super::length::{BodyLength, content_length};
use super::request::{Method, Version};

/// A response's head.
pub struct Response<'f, 'b> {
    version: Version,
    status: u16,
    reason: &'b str,
    head: &'b [u8],
    fields: &'f [Field<'b>],
    body: BodyLength,
    connection: ConnectionOptions,
    /// Its framing was ambiguous: understood, but nothing may follow.
    is_last: bool,
}

impl<'f, 'b> Response<'f, 'b> {
    /// Reads a whole head, the answer to a request with `method`. Its fields
    /// are put in `room`.
    ///
    /// # Errors
    /// [`BadResponse`]: the first thing that is wrong with it.
    pub fn parse(
        head: &'b [u8],
        method: Method,
        room: &'f mut Fields<'b>,
    ) -> Result<Self, BadResponse> {
        let parsed = room.read(head, |room| {
            let mut parsed = httparse::Response::new(room);
            match (parsed.parse(head)?, parsed.version, parsed.code) {
                (httparse::Status::Complete(_), Some(minor), Some(status)) => {
                    let line = (minor, status, parsed.reason.unwrap_or_default());
                    Ok((parsed.headers.len(), line))
                }
                // The scanner has seen the end of the head.
                _ => Err(httparse::Error::NewLine),
            }
        });
        let (fields, (minor, status, reason)) = match parsed {
            Ok(parsed) => parsed,
            Err(httparse::Error::TooManyHeaders) => return Err(BadResponse::TooLarge),
            Err(_) => return Err(BadResponse::Head),
        };
        if !(100..=999).contains(&status) {
            return Err(BadResponse::Head);
        }
        let version = if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let mut response = Self {
            version,
            status,
            reason,
            head,
            fields,
            body: BodyLength::UntilClose,
            connection: ConnectionOptions::default(),
            is_last: false,
        };
        response.weigh(method)?;
        Ok(response)
    }

    /// Finds the length of the body (RFC 9112 section 6.3).
    fn weigh(&mut self, method: Method) -> Result<(), BadResponse> {
        let mut length = None;
        let mut codings = 0;
        for field in self.fields {
            match field.known {
                Some(Known::ContentLength) => {
                    // A list of equal values is one value (RFC 9110 section 8.6).
                    for value in field.value.split(|&byte| byte == b',') {
                        let value =
                            content_length(value.trim_ascii()).ok_or(BadResponse::Framing)?;
                        if *length.get_or_insert(value) != value {
                            return Err(BadResponse::Framing);
                        }
                    }
                }
                Some(Known::TransferEncoding) => {
                    for coding in members(field.value) {
                        codings += 1;
                        if !coding.eq_ignore_ascii_case(b"chunked") {
                            return Err(BadResponse::Framing);
                        }
                    }
                }
                Some(Known::Connection) => self.connection.add(field.value),
                _ => {}
            }
        }
        self.body = match (self.status, method, codings, length) {
            (100..200 | 204 | 304, ..) | (_, Method::Head, ..) => BodyLength::NONE,
            (_, _, 0, Some(length)) => BodyLength::Exactly(length),
            (_, _, 0, None) => BodyLength::UntilClose,
            (_, _, 1, _) if self.version == Version::Http11 => BodyLength::Chunked,
            (..) => return Err(BadResponse::Framing),
        };
        // The coding wins, and the connection is not used again.
        self.is_last = codings > 0 && length.is_some();
        Ok(())
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the final response is still to come. 101 is final.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// How long the body is.
    #[must_use]
    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the upstream keeps its connection for another request.
    #[must_use]
    pub fn persists(&self) -> bool {
        self.connection.persists(self.version)
            && self.body != BodyLength::UntilClose
            && !self.is_last
    }

    pub(super) fn reason(&self) -> &'b str {
        self.reason
    }

    pub(super) fn names_fields(&self) -> bool {
        self.connection.names_fields()
    }

    pub(super) fn fields(&self) -> &'f [Field<'b>] {
        self.fields
    }

    /// What the fields are parts of.
    pub(super) fn head(&self) -> &'b [u8] {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(head: &str, method: Method) -> Result<(BodyLength, bool), BadResponse> {
        let mut room = Fields::new();
        let response = Response::parse(head.as_bytes(), method, &mut room)?;
        Ok((response.body(), response.persists()))
    }

    #[test]
    fn lengths_are_those_of_the_rfc() {
        use BodyLength as L;
        let get = Method::Idempotent;
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Ok((L::Exactly(5), true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
                Ok((L::Exactly(5), true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
                Err(BadResponse::Framing),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok((L::UntilClose, false))),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok((L::NONE, true))),
            (
                "HTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n",
                Ok((L::NONE, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Ok((L::Chunked, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Ok((L::Chunked, false)),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                Err(BadResponse::Framing),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                Ok((L::Exactly(5), false)),
            ),
            (
                "HTTP/1.0 200 OK\nContent-Length: 5\n\n",
                Ok((L::Exactly(5), false)),
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
                Ok((L::Exactly(5), false)),
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", Err(BadResponse::Head)),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Err(BadResponse::Head)),
        ] {
            assert_eq!(body(head, get), expected, "{head:?}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(body(head, Method::Head), Ok((L::NONE, true)));
    }
}
