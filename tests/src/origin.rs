//! An origin server that remembers every byte it was sent.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
};

use crate::{
    error::{Context, Result},
    eventually::eventually,
    netns::NetNs,
    server::Worker,
};

/// A connection that reached an origin.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The origin's address of it.
    pub server: SocketAddr,
    /// The other side's.
    pub client: SocketAddr,
    /// All that came, byte for byte.
    pub received: Vec<u8>,
    /// The requests in it that were complete.
    pub requests: Vec<Request>,
    /// Whether the other side has ended it.
    pub ended: bool,
}

/// A complete request as it reached an origin.
#[derive(Debug, Clone)]
pub struct Request {
    /// Request line and fields, without the empty line.
    pub head: String,
    /// Content, without its chunks.
    pub body: Vec<u8>,
}

impl Request {
    /// All values of a field.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        fields(&self.head, name)
    }
}

/// Values of a field in a head.
pub(crate) fn fields<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    head.lines().skip(1).filter_map(move |line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An HTTP/1.1 origin server. It answers each request with 200 and the line
/// `hello from ADDRESS:PORT`, and is silent about what is not HTTP. Ends when
/// dropped.
#[derive(Debug)]
pub struct Origin {
    netns: NetNs,
    endpoints: Vec<SocketAddr>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    _worker: Worker,
}

impl Origin {
    /// Listens on all `endpoints`.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub fn start(netns: &NetNs, endpoints: &[SocketAddr]) -> Result<Self> {
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let (log, to_bind) = (arrivals.clone(), endpoints.to_vec());
        let worker = Worker::start(netns, async move || {
            for endpoint in to_bind {
                let listener = net::TcpListener::bind(endpoint).await?;
                tokio::spawn(accept(listener, log.clone()));
            }
            Ok(())
        })
        .context(|| format!("starting an origin in {}", netns.name()))?;
        Ok(Self {
            netns: netns.clone(),
            endpoints: endpoints.to_vec(),
            arrivals,
            _worker: worker,
        })
    }

    /// Everything that arrived so far.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.arrivals).clone()
    }

    /// Everything that arrived, when whoever connects has ended: nothing is
    /// left in a queue of the kernel.
    ///
    /// # Errors
    /// When an endpoint cannot be reached any more.
    ///
    /// # Panics
    /// When a connection stays open.
    pub fn settle(&self) -> Result<Vec<Arrival>> {
        // Connections are accepted in the order in which they came: behind
        // this one there is none.
        let mut last = Vec::new();
        for endpoint in &self.endpoints {
            let own = self
                .netns
                .run(|| TcpStream::connect(endpoint).and_then(|stream| stream.local_addr()))
                .context(|| format!("connecting to the origin {endpoint}"))?;
            last.push((own, *endpoint));
        }
        let is_last = |arrival: &Arrival| last.contains(&(arrival.client, arrival.server));
        Ok(eventually(Duration::from_secs(10), || {
            let arrivals = self.arrivals();
            let all_here = arrivals.iter().filter(|arrival| is_last(arrival)).count() == last.len();
            if all_here && arrivals.iter().all(|arrival| arrival.ended) {
                Ok(arrivals
                    .into_iter()
                    .filter(|arrival| !is_last(arrival))
                    .collect())
            } else {
                Err(arrivals)
            }
        }))
    }
}

fn lock(arrivals: &Mutex<Vec<Arrival>>) -> MutexGuard<'_, Vec<Arrival>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: net::TcpListener, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    while let Ok((mut stream, client)) = listener.accept().await {
        let Ok(server) = stream.local_addr() else {
            continue;
        };
        let index = {
            let mut arrivals = lock(&arrivals);
            arrivals.push(Arrival {
                server,
                client,
                received: Vec::new(),
                requests: Vec::new(),
                ended: false,
            });
            arrivals.len() - 1
        };
        let arrivals = arrivals.clone();
        tokio::spawn(async move {
            let update = |change: &dyn Fn(&mut Arrival)| {
                if let Some(arrival) = lock(&arrivals).get_mut(index) {
                    change(arrival);
                }
            };
            // An end is an end, by RST as well.
            let _ = answer(&mut stream, server, &update).await;
            update(&|arrival| arrival.ended = true);
        });
    }
}

async fn answer(
    stream: &mut net::TcpStream,
    server: SocketAddr,
    update: &impl Fn(&dyn Fn(&mut Arrival)),
) -> io::Result<()> {
    let mut unread = Vec::new();
    let mut continued = false;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..length).unwrap_or_default();
        update(&|arrival| arrival.received.extend(bytes));
        unread.extend(bytes);
        while let Some((head, rest)) = split_head(&unread) {
            let Some((body, length)) = content(&head, rest) else {
                if !continued && fields(&head, "expect").any(|value| value == "100-continue") {
                    continued = true;
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                }
                break;
            };
            continued = false;
            let consumed = unread.len() - rest.len() + length;
            unread.drain(..consumed);
            let text = match head.split(' ').next() {
                Some("HEAD") => String::new(),
                _ => format!("hello from {server}\n"),
            };
            let length = format!("hello from {server}\n").len();
            let last = fields(&head, "connection").any(|value| value.eq_ignore_ascii_case("close"));
            let request = Request { head, body };
            update(&|arrival| arrival.requests.push(request.clone()));
            let connection = if last { "Connection: close\r\n" } else { "" };
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{connection}\
                 Content-Length: {length}\r\n\r\n{text}"
            );
            stream.write_all(response.as_bytes()).await?;
            if last {
                stream.shutdown().await?;
            }
        }
    }
}

/// The head, where it is complete, and what comes after it. Bare LF ends a
/// line too: an origin that knew better could not show what it was sent.
fn split_head(bytes: &[u8]) -> Option<(String, &[u8])> {
    let ends = [&b"\r\n\r\n"[..], b"\n\n"];
    let (at, length) = ends
        .iter()
        .filter_map(|end| Some((position(bytes, end)?, end.len())))
        .min()?;
    let (head, rest) = bytes.split_at_checked(at)?;
    Some((
        String::from_utf8_lossy(head).into_owned(),
        rest.get(length..)?,
    ))
}

fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

/// The content of a request and how many bytes it takes, where it is complete.
fn content(head: &str, rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    if fields(head, "transfer-encoding").next().is_some() {
        return dechunk(rest);
    }
    let length = match fields(head, "content-length").next() {
        Some(text) => text.parse().ok()?,
        None => 0,
    };
    Some((rest.get(..length)?.to_vec(), length))
}

/// Content in chunks with its trailers, and how many bytes it takes.
pub(crate) fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let line = rest.get(..position(rest, b"\r\n")?)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        body.extend(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        bytes.get(at..at + 2).filter(|end| end == b"\r\n")?;
        at += 2;
    }
    loop {
        let rest = bytes.get(at..)?;
        let end = position(rest, b"\r\n")?;
        at += end + 2;
        if end == 0 {
            return Some((body, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{content, dechunk, split_head};

    #[test]
    fn content_is_read_by_its_framing() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        let (head, rest) = split_head(request).unwrap();
        assert_eq!(content(&head, rest), Some((b"abc".to_vec(), 3)));
        assert_eq!(content(&head, b"ab"), None);
        let chunked = b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX-T: 1\r\n\r\nGET";
        assert_eq!(
            dechunk(chunked),
            Some((b"abcd".to_vec(), chunked.len() - 3))
        );
        assert_eq!(dechunk(&chunked[..20]), None);
        assert_eq!(dechunk(b"2\r\nabc\r\n0\r\n\r\n"), None);
    }
}
