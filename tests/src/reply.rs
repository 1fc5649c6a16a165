//! What a client of a proxy reads.

use std::io::{self, BufRead, Read};

use crate::origin::fields;

/// A head is never longer; a peer that sends no line end is not waited for.
const LONGEST_LINE: u64 = 64 * 1024;

/// A final response, and 101, over HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// Content, without its chunks.
    pub body: Vec<u8>,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
}

impl Reply {
    /// Reads the answer to a request with this method. `None` when the
    /// connection ends instead of one.
    ///
    /// # Errors
    /// When the connection fails, or ends within the answer, or what comes is
    /// not HTTP/1.
    pub fn read(stream: &mut impl BufRead, method: &str) -> io::Result<Option<Self>> {
        let mut interim = Vec::new();
        loop {
            let Some(head) = read_head(stream)? else {
                return Ok(None);
            };
            let status: u16 = head
                .strip_prefix("HTTP/1.")
                .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
                .ok_or_else(|| invalid(&head))?;
            match status {
                101 | 200.. => {
                    let body = if has_content(status, method) {
                        read_content(stream, &head)?
                    } else {
                        Vec::new()
                    };
                    return Ok(Some(Self {
                        status,
                        head,
                        body,
                        interim,
                    }));
                }
                _ => interim.push(status),
            }
        }
    }

    /// All values of a field.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        fields(&self.head, name)
    }

    /// Its content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what:?}"))
}

fn has_content(status: u16, method: &str) -> bool {
    let is_tunnel = method == "CONNECT" && (200..300).contains(&status);
    method != "HEAD" && !is_tunnel && !matches!(status, 101 | 204 | 304)
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let mut line = Vec::new();
        stream.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            None if line.is_empty() && head.is_empty() => return Ok(None),
            None => return Err(invalid(&String::from_utf8_lossy(&line))),
            Some([]) => return Ok(Some(head)),
            Some(text) => {
                head.push_str(&String::from_utf8_lossy(text));
                head.push('\n');
            }
        }
    }
}

fn read_content(stream: &mut impl BufRead, head: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if fields(head, "transfer-encoding").any(|value| value == "chunked") {
        loop {
            let mut line = String::new();
            stream.take(LONGEST_LINE).read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16).map_err(|_| invalid(&line))?;
            if size == 0 {
                break;
            }
            read_exactly(stream, size, &mut body)?;
            read_exactly(stream, 2, &mut Vec::new())?;
        }
        // Trailers and the empty line.
        loop {
            let mut line = String::new();
            stream.take(LONGEST_LINE).read_line(&mut line)?;
            match line.as_str() {
                "\r\n" => return Ok(body),
                "" => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }
    match fields(head, "content-length").next() {
        Some(length) => {
            let length = length.parse().map_err(|_| invalid(length))?;
            read_exactly(stream, length, &mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_exactly(stream: &mut impl BufRead, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let before = into.len();
    stream.take(length).read_to_end(into)?;
    if u64::try_from(into.len() - before) == Ok(length) {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Reply;

    #[test]
    fn a_reply_ends_where_its_framing_says() {
        let mut stream = &b"HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"[..];
        let first = Reply::read(&mut stream, "GET").unwrap().unwrap();
        assert_eq!((first.status, first.text().as_str()), (200, "abc"));
        assert_eq!(first.interim, [100]);
        let second = Reply::read(&mut stream, "GET").unwrap().unwrap();
        assert_eq!((second.status, second.text().as_str()), (404, "no"));
        assert!(Reply::read(&mut stream, "GET").unwrap().is_none());
    }
}
