//! The bytes that a scenario sends, made once.

use super::scenario::{LoadRole, LoadScenario};

/// What a client says and what it expects.
#[derive(Debug)]
pub(super) struct Script {
    /// For each target, the head that opens a tunnel; empty when none is opened.
    tunnels: Vec<Box<[u8]>>,
    /// For each target, the head of a request.
    requests: Vec<Box<[u8]>>,
    /// Bytes of the body that follows the head of a request.
    upload: u64,
    expected: u16,
    connects_each_time: bool,
    sends_again: bool,
}

impl Script {
    /// `targets` are `host:port`, as a proxy is asked for them.
    pub(super) fn new(
        role: LoadRole,
        scenario: LoadScenario,
        targets: &[String],
        size: u64,
    ) -> Self {
        let proxied = role == LoadRole::Http;
        let tunnels = proxied && scenario.tunnels();
        let request = |target: &String| {
            let prefix = if proxied && !tunnels {
                format!("http://{target}")
            } else {
                String::new()
            };
            let (line, length) = if scenario.uploads() {
                (
                    format!("PUT {prefix}/"),
                    format!("Content-Length: {size}\r\n"),
                )
            } else {
                (format!("GET {prefix}/{size}"), String::new())
            };
            head(&line, target, &format!("Accept: */*\r\n{length}"))
        };
        Self {
            tunnels: targets
                .iter()
                .filter(|_| tunnels)
                .map(|target| head(&format!("CONNECT {target}"), target, ""))
                .collect(),
            requests: targets.iter().map(request).collect(),
            upload: if scenario.uploads() { size } else { 0 },
            expected: scenario.expected_status(),
            connects_each_time: scenario.connects_each_time(),
            sends_again: proxied && !tunnels,
        }
    }

    /// How many targets there are.
    pub(super) fn targets(&self) -> usize {
        self.requests.len()
    }

    /// The head that opens a tunnel to that target.
    pub(super) fn tunnel(&self, target: usize) -> Option<&[u8]> {
        self.tunnels.get(target).map(AsRef::as_ref)
    }

    /// The head of a request to that target.
    pub(super) fn request(&self, target: usize) -> &[u8] {
        self.requests.get(target).map_or(&[], AsRef::as_ref)
    }

    pub(super) fn upload(&self) -> u64 {
        self.upload
    }

    pub(super) fn expected(&self) -> u16 {
        self.expected
    }

    pub(super) fn connects_each_time(&self) -> bool {
        self.connects_each_time
    }

    /// Whether a request is sent once more when the connection that was kept
    /// for it turns out to be closed. One that is passed through, byte by byte,
    /// is not to be closed.
    pub(super) fn sends_again(&self) -> bool {
        self.sends_again
    }
}

/// A request head as curl writes it.
fn head(line: &str, target: &str, fields: &str) -> Box<[u8]> {
    let head =
        format!("{line} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: egress-bench\r\n{fields}\r\n");
    head.into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::head::{Asks, request};

    fn asked(head: &[u8]) -> Option<Asks> {
        request(head).ok().flatten().map(|head| head.asks)
    }

    #[test]
    fn every_scenario_asks_the_origin_for_what_it_understands() {
        let targets = ["a.example:80".to_owned(), "[::1]:80".to_owned()];
        for role in LoadRole::ALL {
            for scenario in LoadScenario::ALL {
                let script = Script::new(role, scenario, &targets, 17);
                assert_eq!(script.targets(), 2);
                for (index, target) in targets.iter().enumerate() {
                    let tunnel = script.tunnel(index);
                    let tunnels = role == LoadRole::Http && scenario.tunnels();
                    assert_eq!(tunnel.is_some(), tunnels);
                    if let Some(tunnel) = tunnel {
                        assert_eq!(asked(tunnel), Some(Asks::Connect));
                    }

                    let expected = if scenario.uploads() {
                        Asks::Put(17)
                    } else {
                        Asks::Get(17)
                    };
                    let request = script.request(index);
                    assert_eq!(asked(request), Some(expected));
                    let text = String::from_utf8_lossy(request);
                    let absolute = text.contains(&format!(" http://{target}/"));
                    assert_eq!(absolute, role == LoadRole::Http && !tunnels, "{text}");
                }
            }
        }
    }
}
