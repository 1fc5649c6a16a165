//! What is done to a subject.

use serde::Deserialize;

/// What a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// An HTTP proxy: forward requests and CONNECT.
    Http,
    /// A port that leads to the origin.
    Tcp,
    /// An HTTP proxy that is spoken to over TLS.
    Tls,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Http, Self::Tcp, Self::Tls];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http => "HTTP proxy",
            Self::Tcp => "TCP proxy",
            Self::Tls => "HTTP proxy over TLS",
        }
    }

    /// For file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// What is done to a subject, and what is measured of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) role: Role,
    pub(crate) work: Work,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Requests of the load generator's scenario `load`, answered with
    /// `answer` bytes; at `rate` a second, or as fast as they are answered.
    Requests {
        load: &'static str,
        connections: usize,
        answer: usize,
        rate: Option<u32>,
    },
    /// Bodies of `piece` bytes one after another on each connection.
    Bulk {
        load: &'static str,
        connections: usize,
        piece: usize,
    },
    /// Connections that do nothing after one request.
    Idle { connections: usize },
    /// Requests for names that a list of so many rules allows and denies.
    Rules { rules: usize },
    /// The first answer after the start.
    Start,
}

/// 1 KiB.
const SMALL: usize = 1 << 10;
/// 16 MiB: several in a second at a few hundred MB/s.
const LARGE: usize = 16 << 20;
const MANY: usize = 32;

/// How many idle connections, and how many rules, there are scenarios for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) idle: Vec<usize>,
    pub(crate) rules: Vec<usize>,
}

impl Extent {
    pub(crate) fn full() -> Self {
        Self {
            idle: vec![5_000, 9_000],
            rules: vec![10, 1_000, 10_000, 100_000],
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            idle: vec![50],
            rules: vec![10, 300],
        }
    }
}

impl Scenario {
    /// All scenarios in the order in which they are shown.
    pub(crate) fn all(extent: &Extent) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |role, name: String, title: String, work| {
            all.push(Self {
                name,
                title,
                role,
                work,
            });
        };
        let requests = |load, connections, rate| Work::Requests {
            load,
            connections,
            answer: SMALL,
            rate,
        };
        let bulk = |load, connections| Work::Bulk {
            load,
            connections,
            piece: LARGE,
        };
        for (name, title, work) in [
            (
                "forward",
                "forward GET of 1 KiB, 32 connections kept alive",
                requests("forward", MANY, None),
            ),
            (
                "forward-1",
                "forward GET of 1 KiB, 1 connection kept alive",
                requests("forward", 1, None),
            ),
            (
                "forward-new",
                "forward GET of 1 KiB, a new client connection each, 32 at a time",
                requests("forward-new", MANY, None),
            ),
            (
                "connect",
                "CONNECT, one request and close, 32 at a time",
                requests("connect", MANY, None),
            ),
            (
                "connect-1",
                "CONNECT, one request and close, one at a time",
                requests("connect", 1, None),
            ),
            (
                "requests",
                "GET of 1 KiB inside 32 open tunnels",
                requests("requests", MANY, None),
            ),
            (
                "rate-forward",
                "1 500 forward GET a second offered",
                requests("forward", MANY, Some(1_500)),
            ),
            (
                "rate-connect",
                "1 000 tunnels a second offered",
                requests("connect", MANY, Some(1_000)),
            ),
            (
                "bulk-1",
                "bulk download through 1 tunnel",
                bulk("bulk-down", 1),
            ),
            (
                "bulk-16",
                "bulk download through 16 tunnels",
                bulk("bulk-down", 16),
            ),
            (
                "bulk-up-1",
                "bulk upload through 1 tunnel",
                bulk("bulk-up", 1),
            ),
            ("forward-get", "bulk forward GET", bulk("forward-get", 1)),
            ("forward-put", "bulk forward PUT", bulk("forward-put", 1)),
        ] {
            add(Role::Http, name.to_owned(), title.to_owned(), work);
        }
        for connections in &extent.idle {
            add(
                Role::Http,
                format!("idle-{connections}"),
                format!("{connections} idle tunnels"),
                Work::Idle {
                    connections: *connections,
                },
            );
        }
        for rules in &extent.rules {
            add(
                Role::Http,
                format!("rules-{rules}"),
                format!("{rules} rules"),
                Work::Rules { rules: *rules },
            );
        }
        add(
            Role::Http,
            "start".to_owned(),
            "start to first answer, and memory at rest".to_owned(),
            Work::Start,
        );
        for (name, title, work) in [
            (
                "tcp-new",
                "new connection, one request and close, 32 at a time",
                requests("connect", MANY, None),
            ),
            (
                "tcp-bulk-1",
                "bulk download through 1 connection",
                bulk("bulk-down", 1),
            ),
            (
                "tcp-bulk-16",
                "bulk download through 16 connections",
                bulk("bulk-down", 16),
            ),
        ] {
            add(Role::Tcp, name.to_owned(), title.to_owned(), work);
        }
        for connections in &extent.idle {
            add(
                Role::Tcp,
                format!("tcp-idle-{connections}"),
                format!("{connections} idle connections"),
                Work::Idle {
                    connections: *connections,
                },
            );
        }
        add(
            Role::Tcp,
            "tcp-start".to_owned(),
            "start to first answer, and memory at rest".to_owned(),
            Work::Start,
        );
        for (name, title, work) in [
            (
                "tls-handshakes",
                "TLS handshake, CONNECT, one request and close, 32 at a time",
                requests("tls-handshakes", MANY, None),
            ),
            (
                "tls-bulk",
                "bulk download through 1 tunnel in TLS",
                bulk("tls-bulk", 1),
            ),
        ] {
            add(Role::Tls, name.to_owned(), title.to_owned(), work);
        }
        all
    }
}

impl Work {
    /// Most connections that are open at a time.
    pub(crate) fn connections(&self) -> usize {
        match self {
            Self::Requests { connections, .. }
            | Self::Bulk { connections, .. }
            | Self::Idle { connections } => *connections,
            Self::Rules { .. } => MANY,
            Self::Start => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let all = Scenario::all(&Extent::full());
        let mut names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
