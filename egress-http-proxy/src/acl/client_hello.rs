//! The server name of a TLS ClientHello.

use std::borrow::Cow;

use egress_config::DomainName;

/// The longest ClientHello that is looked at, in bytes. Those of browsers,
/// with post-quantum key shares, stay under 4 KiB.
const MAX_HELLO: usize = 64 * 1024;
/// The most records that a ClientHello may be spread over, so that reading it
/// again with every byte that comes stays cheap.
const MAX_RECORDS: usize = 64;
/// The longest record (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;

/// What the first bytes of a connection say about TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientHello {
    /// A ClientHello may yet come of it.
    Partial,
    /// It is no ClientHello, or a broken one.
    NotTls,
    /// A ClientHello with the server name that it asks for in clear. With
    /// Encrypted Client Hello that is the public name of the outer one.
    ServerName(Option<DomainName>),
}

impl ClientHello {
    /// Reads the first bytes of a connection: a handshake message in one or
    /// more TLS records (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3).
    /// Call it again with more bytes as long as it says
    /// [`Partial`](Self::Partial); it never does so beyond 64 KiB of message.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match message(bytes).and_then(|message| server_name(&message)) {
            Ok(name) => Self::ServerName(name),
            Err(Stop::Short) => Self::Partial,
            Err(Stop::Bad) => Self::NotTls,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// The bytes end too soon.
    Short,
    /// This is no ClientHello.
    Bad,
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME_EXTENSION: u16 = 0;
const HOST_NAME: u8 = 0;

/// The body of the handshake message, put together from its records.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Stop> {
    let mut records = Reader(bytes);
    let mut message = Cow::Borrowed(&[][..]);
    for _ in 0..MAX_RECORDS {
        let (fragment, complete) = fragment(&mut records)?;
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        let Some(body) = body_length(&message)? else {
            if complete {
                continue;
            }
            return Err(Stop::Short);
        };
        let end = HANDSHAKE_HEADER + body;
        if message.len() >= end {
            // Another message behind it in the same record is not ours.
            return Ok(match message {
                Cow::Borrowed(all) => {
                    Cow::Borrowed(all.get(HANDSHAKE_HEADER..end).unwrap_or_default())
                }
                Cow::Owned(mut all) => {
                    all.truncate(end);
                    all.drain(..HANDSHAKE_HEADER);
                    Cow::Owned(all)
                }
            });
        }
        if !complete {
            return Err(Stop::Short);
        }
    }
    Err(Stop::Bad)
}

/// Type and length in front of a handshake message.
const HANDSHAKE_HEADER: usize = 4;

/// The next record's fragment, as much of it as is there, and whether that is
/// all of it.
fn fragment<'a>(records: &mut Reader<'a>) -> Result<(&'a [u8], bool), Stop> {
    // Each byte is judged as soon as it is there: what is no TLS should not
    // be waited for.
    if records.u8()? != HANDSHAKE_RECORD || records.u8()? != 3 {
        return Err(Stop::Bad);
    }
    records.u8()?;
    let length = usize::from(records.u16()?);
    if length == 0 || length > MAX_RECORD {
        return Err(Stop::Bad);
    }
    Ok(match records.take(length) {
        Ok(fragment) => (fragment, true),
        Err(_) => (std::mem::take(&mut records.0), false),
    })
}

/// The length of the message's body, `None` while its header is incomplete.
fn body_length(message: &[u8]) -> Result<Option<usize>, Stop> {
    let mut header = Reader(message);
    match header.u8() {
        Ok(CLIENT_HELLO) => {}
        Ok(_) => return Err(Stop::Bad),
        Err(_) => return Ok(None),
    }
    let (Ok(high), Ok(low)) = (header.u8(), header.u16()) else {
        return Ok(None);
    };
    let length = (usize::from(high) << 16) | usize::from(low);
    if length > MAX_HELLO {
        return Err(Stop::Bad);
    }
    Ok(Some(length))
}

/// The server name in the body of a ClientHello. The body is whole, so that
/// whatever is missing in it is an error.
fn server_name(body: &[u8]) -> Result<Option<DomainName>, Stop> {
    let all_there = |_| Stop::Bad;
    let mut hello = Reader(body);
    let version = hello.u16().map_err(all_there)?;
    if version >> 8 != 3 {
        return Err(Stop::Bad);
    }
    hello.take(32).map_err(all_there)?;
    let session = hello.vector8().map_err(all_there)?;
    let ciphers = hello.vector16().map_err(all_there)?;
    let compressions = hello.vector8().map_err(all_there)?;
    if session.len() > 32 || ciphers.is_empty() || ciphers.len() % 2 != 0 || compressions.is_empty()
    {
        return Err(Stop::Bad);
    }
    if hello.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(hello.vector16().map_err(all_there)?);
    if !hello.0.is_empty() {
        return Err(Stop::Bad);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16().map_err(all_there)?;
        let data = extensions.vector16().map_err(all_there)?;
        if kind == SERVER_NAME_EXTENSION {
            let second = found.replace(host_name(data)?).is_some();
            if second {
                return Err(Stop::Bad);
            }
        }
    }
    Ok(found)
}

/// A list with exactly one entry, a host name: no other kind was ever defined,
/// and two of one kind are forbidden.
fn host_name(data: &[u8]) -> Result<DomainName, Stop> {
    let all_there = |_| Stop::Bad;
    let mut extension = Reader(data);
    let mut list = Reader(extension.vector16().map_err(all_there)?);
    if list.u8().map_err(all_there)? != HOST_NAME {
        return Err(Stop::Bad);
    }
    let name = list.vector16().map_err(all_there)?;
    if !list.0.is_empty() || !extension.0.is_empty() {
        return Err(Stop::Bad);
    }
    std::str::from_utf8(name)
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or(Stop::Bad)
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Stop::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        let (&first, rest) = self.0.split_first().ok_or(Stop::Short)?;
        self.0 = rest;
        Ok(first)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        let (&first, rest) = self.0.split_first_chunk().ok_or(Stop::Short)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(first))
    }

    /// A vector with a length of one byte.
    fn vector8(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// A vector with a length of two bytes.
    fn vector16(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(data)].concat()
    }

    fn server_name(name: &str) -> Vec<u8> {
        let entry = [&[HOST_NAME][..], &vector16(name.as_bytes())].concat();
        extension(SERVER_NAME_EXTENSION, &vector16(&entry))
    }

    fn handshake(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector16(&[0x13, 1]));
        body.extend([1, 0]);
        body.extend(vector16(&extensions.concat()));
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO, a, b, c][..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|fragment| [&[HANDSHAKE_RECORD, 3, 1][..], &vector16(fragment)].concat())
            .collect()
    }

    fn name(text: &str) -> ClientHello {
        ClientHello::ServerName(Some(text.parse().unwrap()))
    }

    #[test]
    fn a_name_however_it_is_cut() {
        let other = extension(43, &[2, 3, 4]);
        let ech = extension(0xfe0d, &[0; 40]);
        let message = handshake(&[other, server_name("WWW.example.com"), ech]);
        for size in [message.len(), 100, 17, 3] {
            let bytes = records(&message, size);
            assert_eq!(
                ClientHello::parse(&bytes),
                name("www.example.com"),
                "{size}"
            );
            for end in 0..bytes.len() {
                let partial = ClientHello::parse(&bytes[..end]);
                assert_eq!(partial, ClientHello::Partial, "{size} {end}");
            }
            let more = [&bytes[..], b"anything"].concat();
            assert_eq!(ClientHello::parse(&more), name("www.example.com"));
        }
    }

    #[test]
    fn a_hello_without_a_name() {
        let none = ClientHello::ServerName(None);
        let message = handshake(&[]);
        assert_eq!(ClientHello::parse(&records(&message, 500)), none);
        // SSL 3.0 and TLS 1.0 had no extensions at all.
        let mut short = message;
        short.truncate(short.len() - 2);
        let length = u8::try_from(short.len() - HANDSHAKE_HEADER).unwrap();
        short[3] = length;
        assert_eq!(ClientHello::parse(&records(&short, 500)), none);
    }

    #[test]
    fn what_is_no_tls_is_told_at_once() {
        for bytes in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"SSH-2.0-x\r\n",
            &[0x80],
            &[22, 2],
            &[23, 3, 3],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0x40, 1],
            &[22, 3, 1, 0, 4, 2],
            // A message of 64 KiB and one byte.
            &[22, 3, 1, 0, 9, 1, 1, 0, 1],
        ] {
            assert_eq!(ClientHello::parse(bytes), ClientHello::NotTls, "{bytes:?}");
        }
        assert_eq!(ClientHello::parse(&[]), ClientHello::Partial);
        assert_eq!(
            ClientHello::parse(&[22, 3, 1, 0, 9, 1, 1, 0, 0]),
            ClientHello::Partial
        );
    }

    #[test]
    fn a_broken_hello_is_none() {
        let twice = handshake(&[server_name("a.test"), server_name("b.test")]);
        let odd_name = handshake(&[server_name("a..test")]);
        let address = handshake(&[server_name("192.0.2.1")]);
        let not_ascii = handshake(&[server_name("bücher.test")]);
        let nul = handshake(&[server_name("a.test\0")]);
        let empty = handshake(&[server_name("")]);
        let two_names = {
            let entry = [&[HOST_NAME][..], &vector16(b"a.test")].concat();
            let list = vector16(&[&entry[..], &entry].concat());
            handshake(&[extension(SERVER_NAME_EXTENSION, &list)])
        };
        let other_kind = {
            let entry = [&[1][..], &vector16(b"a.test")].concat();
            handshake(&[extension(SERVER_NAME_EXTENSION, &vector16(&entry))])
        };
        let mut behind = handshake(&[server_name("a.test")]);
        behind[3] += 1;
        behind.push(0);
        for message in [
            twice, odd_name, address, not_ascii, nul, empty, two_names, other_kind, behind,
        ] {
            let hello = ClientHello::parse(&records(&message, 1000));
            assert_eq!(hello, ClientHello::NotTls, "{message:?}");
        }
    }

    #[test]
    fn a_hello_in_crumbs_is_not_waited_for() {
        let message = handshake(&[server_name("a.test"), extension(21, &[0; 100])]);
        assert_eq!(
            ClientHello::parse(&records(&message, 1)),
            ClientHello::NotTls
        );
        assert_eq!(ClientHello::parse(&records(&message, 4)), name("a.test"));
    }
}
