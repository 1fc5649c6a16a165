//! What the kubelet and a scraper ask of a pod.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{client::ClientError, host::Host};

/// How long a page may take: a program that is busy for a moment answers late.
const DEADLINE: Duration = Duration::from_secs(2);

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Content, as text.
    pub body: String,
}

impl Host {
    /// `curl http://TO/PATH`, within 2 s.
    ///
    /// # Errors
    /// As the network answered, or when it was not HTTP.
    pub fn get(&self, to: SocketAddr, path: &str) -> Result<Page, ClientError> {
        let mut stream = self
            .netns()
            .run(|| TcpStream::connect_timeout(&to, DEADLINE))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let parse = || {
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some(Page {
                status,
                body: body.to_owned(),
            })
        };
        parse().ok_or_else(|| ClientError::BadAnswer(answer.clone()))
    }
}

impl Page {
    /// Value of a sample on a page of metrics: `name` with its labels, as they
    /// stand there.
    #[must_use]
    pub fn sample(&self, name: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        self.body.lines().find_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let body = "a_total 1\na_total{b=\"c\"} 2\na 3.5\n".to_owned();
        let page = Page { status: 200, body };
        assert_eq!(page.sample("a"), Some(3.5));
        assert_eq!(page.sample("a_total{b=\"c\"}"), Some(2.0));
        assert_eq!(page.sample("a_to"), None);
    }
}
