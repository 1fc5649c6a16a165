//! What is said on a client's connection; pure.

use anyhow::{Result, bail, ensure};

use super::head::{self, ResponseHead};
use super::script::Script;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing is under way.
    Rest,
    /// A tunnel is asked for.
    Tunnel,
    /// A request is under way.
    Request,
}

/// What is being received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Head,
    Body {
        left: u64,
    },
    /// A body that ends with the connection.
    UntilEnd,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Not enough yet.
    Part,
    /// The tunnel is open; its request is what is to be sent now.
    Tunnel,
    /// The whole response.
    Response {
        /// The connection cannot be used again.
        last: bool,
    },
}

/// One operation after another on one connection.
#[derive(Debug)]
pub(super) struct Dialogue {
    step: Step,
    target: usize,
    /// Bytes of the head that were sent.
    head_sent: usize,
    upload_left: u64,
    receiving: Receiving,
    last: bool,
    /// Whether anything was heard since the last thing that was said.
    answered: bool,
    /// The start of a head whose end has not arrived; as a rule it is empty.
    early: Vec<u8>,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Rest,
            target: 0,
            head_sent: 0,
            upload_left: 0,
            receiving: Receiving::Head,
            last: false,
            answered: false,
            early: Vec::new(),
        }
    }

    /// Begins an operation on a connection that is new, or has had one.
    pub(super) fn begin(&mut self, script: &Script, target: usize, new: bool) {
        self.target = target;
        if new && script.tunnel(target).is_some() {
            self.enter(Step::Tunnel, 0);
        } else {
            self.enter(Step::Request, script.upload());
        }
    }

    fn enter(&mut self, step: Step, upload: u64) {
        self.step = step;
        self.head_sent = 0;
        self.upload_left = upload;
        self.receiving = Receiving::Head;
        self.last = false;
        self.answered = false;
        self.early.clear();
    }

    /// What is to be sent next; empty when all is sent.
    pub(super) fn outgoing<'a>(&self, script: &'a Script, body: &'a [u8]) -> &'a [u8] {
        let head = match self.step {
            Step::Rest => return &[],
            Step::Tunnel => script.tunnel(self.target).unwrap_or_default(),
            Step::Request => script.request(self.target),
        };
        match head.get(self.head_sent..) {
            None | Some([]) => {
                let left = usize::try_from(self.upload_left).unwrap_or(usize::MAX);
                body.get(..left).unwrap_or(body)
            }
            Some(head) => head,
        }
    }

    /// So much of [`Self::outgoing`] was sent.
    pub(super) fn sent(&mut self, script: &Script, bytes: usize) {
        let head = match self.step {
            Step::Rest => 0,
            Step::Tunnel => script.tunnel(self.target).map_or(0, <[u8]>::len),
            Step::Request => script.request(self.target).len(),
        };
        if self.head_sent < head {
            self.head_sent += bytes;
        } else {
            self.upload_left = self.upload_left.saturating_sub(bytes as u64);
        }
    }

    /// Bytes of a body that are still to come, when it is a body that comes.
    pub(super) fn body_left(&self) -> Option<u64> {
        match self.receiving {
            Receiving::Body { left } => Some(left),
            Receiving::Head | Receiving::UntilEnd => None,
        }
    }

    /// So much of the body arrived, and nobody looks at it.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<Heard> {
        let Receiving::Body { left } = &mut self.receiving else {
            return Ok(Heard::Part);
        };
        *left = left.saturating_sub(bytes);
        if *left > 0 {
            return Ok(Heard::Part);
        }
        self.end()
    }

    /// These bytes arrived. Also says how many of them are of a body.
    pub(super) fn hear(&mut self, script: &Script, bytes: &[u8]) -> Result<(Heard, u64)> {
        self.answered = true;
        match self.receiving {
            Receiving::Head if self.step == Step::Rest => {
                bail!("{} bytes that nobody asked for", bytes.len());
            }
            Receiving::Head if self.early.is_empty() => {
                let Some(head) = head::response(bytes)? else {
                    self.early.extend_from_slice(bytes);
                    return Ok((Heard::Part, 0));
                };
                self.head(script, &head, bytes.len())
            }
            Receiving::Head => {
                self.early.extend_from_slice(bytes);
                let Some(head) = head::response(&self.early)? else {
                    return Ok((Heard::Part, 0));
                };
                self.head(script, &head, self.early.len())
            }
            Receiving::Body { left } => {
                let bytes = bytes.len() as u64;
                ensure!(bytes <= left, "{} bytes after the response", bytes - left);
                Ok((self.skip(bytes)?, bytes))
            }
            Receiving::UntilEnd => Ok((Heard::Part, bytes.len() as u64)),
        }
    }

    fn head(
        &mut self,
        script: &Script,
        head: &ResponseHead,
        received: usize,
    ) -> Result<(Heard, u64)> {
        let ResponseHead {
            status,
            length,
            body,
            last,
        } = *head;
        let after = received.saturating_sub(length) as u64;
        if self.step == Step::Tunnel {
            ensure!(status == 200, "CONNECT was answered with {status}");
            ensure!(after == 0, "{after} bytes from a tunnel that was not used");
            self.enter(Step::Request, script.upload());
            return Ok((Heard::Tunnel, 0));
        }
        ensure!(
            status == script.expected(),
            "the request was answered with {status}"
        );
        self.last = last;
        let Some(body) = body else {
            ensure!(last, "a response that does not say where it ends");
            self.receiving = Receiving::UntilEnd;
            return Ok((Heard::Part, after));
        };
        ensure!(after <= body, "{} bytes after the response", after - body);
        self.receiving = Receiving::Body { left: body };
        Ok((self.skip(after)?, after))
    }

    /// The other side ended the connection.
    pub(super) fn hear_end(&mut self) -> Result<Heard> {
        match (self.step, self.receiving) {
            // One that was kept for the next request, and is not kept any more.
            (Step::Rest, _) => Ok(Heard::Response { last: true }),
            (Step::Request, Receiving::UntilEnd) => self.end(),
            (Step::Tunnel, _) => bail!("the connection ended before CONNECT was answered"),
            (Step::Request, Receiving::Head) => {
                bail!("the connection ended before the request was answered")
            }
            (Step::Request, Receiving::Body { left }) => {
                bail!("the connection ended {left} bytes before the response did")
            }
        }
    }

    /// Whether nothing is under way.
    pub(super) fn rests(&self) -> bool {
        self.step == Step::Rest
    }

    /// Whether a request is under way of whose response nothing has arrived.
    pub(super) fn is_unanswered(&self) -> bool {
        self.step == Step::Request && !self.answered
    }

    fn end(&mut self) -> Result<Heard> {
        ensure!(
            self.upload_left == 0,
            "an answer before the last {} bytes of the body were sent",
            self.upload_left
        );
        let last = self.last;
        self.enter(Step::Rest, 0);
        Ok(Heard::Response { last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scenario::{LoadRole, LoadScenario};

    const BODY: &[u8] = &[7; 10];

    fn script(scenario: LoadScenario, size: u64) -> Script {
        Script::new(LoadRole::Http, scenario, &["a:80".to_owned()], size)
    }

    /// Sends all there is, three bytes at a time.
    fn send(dialogue: &mut Dialogue, script: &Script) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let out = dialogue.outgoing(script, BODY);
            let Some(piece) = out.chunks(3).next() else {
                return sent;
            };
            sent.extend_from_slice(piece);
            dialogue.sent(script, piece.len());
        }
    }

    #[test]
    fn a_tunnel_is_opened_once() -> Result<()> {
        let script = script(LoadScenario::Requests, 4);
        let mut dialogue = Dialogue::new();
        dialogue.begin(&script, 0, true);
        assert!(send(&mut dialogue, &script).starts_with(b"CONNECT a:80 "));
        let opened = b"HTTP/1.1 200 Connection established\r\n\r\n";
        assert_eq!(dialogue.hear(&script, opened)?, (Heard::Tunnel, 0));

        for _ in 0..2 {
            assert!(send(&mut dialogue, &script).starts_with(b"GET /4 "));
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12";
            assert_eq!(dialogue.hear(&script, head)?, (Heard::Part, 2));
            assert_eq!(dialogue.body_left(), Some(2));
            let answered = Heard::Response { last: false };
            assert_eq!(dialogue.hear(&script, b"34")?, (answered, 2));
            dialogue.begin(&script, 0, false);
        }
        Ok(())
    }

    #[test]
    fn a_response_may_come_byte_by_byte() -> Result<()> {
        let script = script(LoadScenario::Forward, 2);
        let mut dialogue = Dialogue::new();
        dialogue.begin(&script, 0, true);
        assert!(send(&mut dialogue, &script).starts_with(b"GET http://a:80/2 "));
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
        let (end, start) = response.split_last().expect("it is not empty");
        for byte in start {
            assert_eq!(dialogue.hear(&script, &[*byte])?.0, Heard::Part);
        }
        let heard = dialogue.hear(&script, &[*end])?;
        assert_eq!(heard, (Heard::Response { last: true }, 1));
        assert!(dialogue.rests());
        Ok(())
    }

    #[test]
    fn an_upload_is_the_head_and_so_many_bytes() -> Result<()> {
        let script = script(LoadScenario::ForwardPut, 25);
        let mut dialogue = Dialogue::new();
        dialogue.begin(&script, 0, true);
        let sent = send(&mut dialogue, &script);
        let head = script.request(0).len();
        assert_eq!(sent.len(), head + 25);
        assert_eq!(&sent[head..], [7; 25]);
        let done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let heard = dialogue.hear(&script, done)?;
        assert_eq!(heard, (Heard::Response { last: false }, 0));
        Ok(())
    }

    #[test]
    fn a_body_may_end_with_the_connection() -> Result<()> {
        let script = script(LoadScenario::Misses, 0);
        let mut dialogue = Dialogue::new();
        dialogue.begin(&script, 0, true);
        let denied = b"HTTP/1.0 403 Forbidden\r\n\r\nno";
        assert_eq!(dialogue.hear(&script, denied)?, (Heard::Part, 2));
        assert_eq!(dialogue.hear_end()?, Heard::Response { last: true });
        Ok(())
    }

    #[test]
    fn what_is_not_the_answer_is_an_error() {
        for (scenario, bytes, expected) in [
            (
                LoadScenario::Forward,
                "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                "answered with 502",
            ),
            (
                LoadScenario::Connect,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
                "CONNECT was answered with 403",
            ),
            (
                LoadScenario::Forward,
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
                "1 bytes after",
            ),
            (
                LoadScenario::ForwardPut,
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "before the last 5 bytes",
            ),
            (LoadScenario::Forward, "", "before the request was answered"),
        ] {
            let script = script(scenario, 5);
            let mut dialogue = Dialogue::new();
            dialogue.begin(&script, 0, true);
            let heard = if bytes.is_empty() {
                dialogue.hear_end().map(|_| ())
            } else {
                dialogue.hear(&script, bytes.as_bytes()).map(|_| ())
            };
            let error = heard.expect_err(bytes);
            assert!(dialogue.is_unanswered() == bytes.is_empty(), "{bytes}");
            assert!(error.to_string().contains(expected), "{error} for {bytes}");
        }
    }
}
