//! The chunked transfer coding (RFC 9112 section 7.1), decoded strictly and
//! written anew.

use std::io::Write as _;

use httparse::EMPTY_HEADER;
use thiserror::Error;

use super::fields::may_trail;

/// Longest chunk extensions of one chunk, in bytes; nobody uses any.
const MAX_EXTENSION: u32 = 1024;
/// Longest trailer section, in bytes.
const MAX_TRAILERS: usize = 16 * 1024;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: usize = 32;

/// How the decoded bytes go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// In the chunked coding, with the trailers.
    Chunked,
    /// As they are, to a reader of HTTP/1.0; trailers are dropped.
    Plain,
}

/// A chunked body that is being read.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In the chunk size, so many digits of which were read.
    Size {
        size: u64,
        digits: u8,
    },
    /// In chunk extensions, which are dropped.
    Extension {
        size: u64,
        length: u32,
    },
    /// After the CR of the chunk size's line.
    SizeFeed {
        size: u64,
    },
    /// So many bytes of data are left.
    Data {
        left: u64,
    },
    /// After the data.
    DataReturn,
    /// After the CR behind the data.
    DataFeed,
    /// In the trailer section.
    Trailers,
    Done,
}

const START: State = State::Size { size: 0, digits: 0 };

/// The body is not in the chunked coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the chunked body is malformed")]
pub struct BadChunk;

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: START,
            trailers: Vec::new(),
        }
    }
}

impl Chunked {
    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads `input` and appends what is to be sent on to `out`. Returns how
    /// many bytes were read: all of them, unless the body ended before.
    ///
    /// # Errors
    /// [`BadChunk`]; what was appended before is valid, and the body can never
    /// be completed.
    pub fn transcode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        outgoing: Outgoing,
    ) -> Result<usize, BadChunk> {
        let mut at = 0;
        while let Some(rest) = input.get(at..)
            && let Some(&byte) = rest.first()
        {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let (data, _) = rest.split_at_checked(length).ok_or(BadChunk)?;
                    match outgoing {
                        Outgoing::Chunked => write_chunk(data, out),
                        Outgoing::Plain => out.extend_from_slice(data),
                    }
                    at += length;
                    let left = left - length as u64;
                    self.state = if left == 0 {
                        State::DataReturn
                    } else {
                        State::Data { left }
                    };
                }
                State::Trailers => {
                    let (length, ended) = self.trailer_bytes(rest)?;
                    at += length;
                    if ended {
                        if outgoing == Outgoing::Chunked {
                            self.write_trailers(out)?;
                        }
                        self.state = State::Done;
                    }
                }
                other => {
                    self.state = other.after(byte)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    /// Collects trailers up to the empty line.
    fn trailer_bytes(&mut self, rest: &[u8]) -> Result<(usize, bool), BadChunk> {
        for (index, &byte) in rest.iter().enumerate() {
            self.trailers.push(byte);
            if self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n") {
                return Ok((index + 1, true));
            }
            let bare_feed = byte == b'\n' && !self.trailers.ends_with(b"\r\n");
            if bare_feed || self.trailers.len() > MAX_TRAILERS {
                return Err(BadChunk);
            }
        }
        Ok((rest.len(), false))
    }

    fn write_trailers(&self, out: &mut Vec<u8>) -> Result<(), BadChunk> {
        let mut fields = [EMPTY_HEADER; MAX_TRAILER_FIELDS];
        let parsed = httparse::parse_headers(&self.trailers, &mut fields);
        let Ok(httparse::Status::Complete((_, fields))) = parsed else {
            return Err(BadChunk);
        };
        out.extend_from_slice(b"0\r\n");
        for field in fields.iter().filter(|field| may_trail(field.name)) {
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

impl State {
    /// The state after one byte of framing.
    fn after(self, byte: u8) -> Result<Self, BadChunk> {
        match (self, byte) {
            (Self::Size { size, digits }, digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16).ok_or(BadChunk)?;
                // 15 digits are an exbibyte; leading zeros count too, so that
                // nobody sends them for ever.
                if digits == 15 {
                    return Err(BadChunk);
                }
                Ok(Self::Size {
                    size: size * 16 + u64::from(value),
                    digits: digits + 1,
                })
            }
            (Self::Size { digits: 0, .. }, _) => Err(BadChunk),
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Ok(Self::SizeFeed { size })
            }
            (Self::Size { size, .. }, b';') => Ok(Self::Extension { size, length: 0 }),
            (Self::Extension { size, length }, byte)
                if length < MAX_EXTENSION && (byte == b'\t' || !byte.is_ascii_control()) =>
            {
                Ok(Self::Extension {
                    size,
                    length: length + 1,
                })
            }
            (Self::SizeFeed { size: 0 }, b'\n') => Ok(Self::Trailers),
            (Self::SizeFeed { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataReturn, b'\r') => Ok(Self::DataFeed),
            (Self::DataFeed, b'\n') => Ok(START),
            _ => Err(BadChunk),
        }
    }
}

/// Appends `data` as one chunk; nothing for no data, which would end the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, without trailers.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is sent on for `input` that arrives in pieces of `step` bytes.
    fn sent(input: &[u8], step: usize, outgoing: Outgoing) -> Result<(Vec<u8>, usize), BadChunk> {
        let (mut chunked, mut out, mut read) = (Chunked::default(), Vec::new(), 0);
        for piece in input.chunks(step) {
            read += chunked.transcode(piece, &mut out, outgoing)?;
            if chunked.is_done() {
                return Ok((out, read));
            }
        }
        Err(BadChunk)
    }

    #[test]
    fn chunks_are_written_anew() {
        let body = b"3;a=b\r\nabc\r\n0A\r\n0123456789\r\n000\r\nX-T: 1\r\nHost: evil\r\n\r\nGET";
        let (out, read) = sent(body, body.len(), Outgoing::Chunked).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out),
            "3\r\nabc\r\na\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n"
        );
        assert_eq!(&body[read..], b"GET");
        for step in 1..8 {
            let (plain, read) = sent(body, step, Outgoing::Plain).unwrap();
            assert_eq!(plain, b"abc0123456789");
            assert_eq!(&body[read..], b"GET");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            &b"3;a\nabc\r\n0\r\n\r\n"[..],
            b"3\nabc\n0\n\n",
            b"-3\r\nabc\r\n0\r\n\r\n",
            b" 3 \r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"10000000000000003\r\nabc\r\n0\r\n\r\n",
            b"2\r\nabc\r\n0\r\n\r\n",
            b"3_0\r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"\r\nabc\r\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"0\r\n\nX: a\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\nX: a\n\r\n\r\n",
            b"3;\0\r\nabc\r\n0\r\n\r\n",
        ] {
            for step in [1, body.len()] {
                let result = sent(body, step, Outgoing::Chunked);
                assert_eq!(result, Err(BadChunk), "{:?}", String::from_utf8_lossy(body));
            }
        }
        let endless = [&b"1;"[..], &[b'a'; 2000]].concat();
        assert_eq!(sent(&endless, 7, Outgoing::Plain), Err(BadChunk));
        let trailers = [&b"0\r\nX: "[..], &[b'a'; 20_000]].concat();
        assert_eq!(sent(&trailers, 4096, Outgoing::Plain), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn data_survives_any_split(
            data in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 1_usize..50,
            step in 1_usize..50,
        ) {
            let mut coded = Vec::new();
            for piece in data.chunks(cut) {
                write_chunk(piece, &mut coded);
            }
            write_last_chunk(&mut coded);
            let (plain, read) = sent(&coded, step, Outgoing::Plain).unwrap();
            prop_assert_eq!(&plain, &data);
            prop_assert_eq!(read, coded.len());
            // What is written anew reads the same.
            let (again, _) = sent(&coded, step, Outgoing::Chunked).unwrap();
            prop_assert_eq!(sent(&again, step, Outgoing::Plain).unwrap().0, data);
        }

        #[test]
        fn no_input_panics_or_stalls(
            input in proptest::collection::vec(any::<u8>(), 1..200),
            step in 1_usize..20,
        ) {
            let _ = sent(&input, step, Outgoing::Chunked);
        }
    }
}
