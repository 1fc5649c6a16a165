//! What is done.

/// What the load generator speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRole {
    /// An HTTP proxy: absolute-form requests and CONNECT.
    Http,
    /// A port that leads to the origin: neither.
    Tcp,
}

impl LoadRole {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http, Self::Tcp];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// What is done to it. To a port, what is said of tunnels is done on plain
/// connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadScenario {
    /// Requests on connections that are kept.
    Forward,
    /// A new connection for each request.
    ForwardNew,
    /// A new tunnel for each request.
    Connect,
    /// Requests inside open tunnels.
    Requests,
    /// Downloads inside open tunnels.
    BulkDown,
    /// Uploads inside open tunnels.
    BulkUp,
    /// Downloads on connections that are kept.
    ForwardGet,
    /// Uploads on connections that are kept.
    ForwardPut,
    /// Tunnels that do nothing after one request.
    Idle,
    /// Requests that the rules deny.
    Misses,
    /// A new tunnel in TLS for each request.
    TlsHandshakes,
    /// Downloads inside open tunnels in TLS.
    TlsBulk,
}

impl LoadScenario {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Forward,
        Self::ForwardNew,
        Self::Connect,
        Self::Requests,
        Self::BulkDown,
        Self::BulkUp,
        Self::ForwardGet,
        Self::ForwardPut,
        Self::Idle,
        Self::Misses,
        Self::TlsHandshakes,
        Self::TlsBulk,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::ForwardNew => "forward-new",
            Self::Connect => "connect",
            Self::Requests => "requests",
            Self::BulkDown => "bulk-down",
            Self::BulkUp => "bulk-up",
            Self::ForwardGet => "forward-get",
            Self::ForwardPut => "forward-put",
            Self::Idle => "idle",
            Self::Misses => "misses",
            Self::TlsHandshakes => "tls-handshakes",
            Self::TlsBulk => "tls-bulk",
        }
    }

    /// Whether a tunnel is opened first.
    pub(super) fn tunnels(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::Requests
                | Self::BulkDown
                | Self::BulkUp
                | Self::Idle
                | Self::TlsHandshakes
                | Self::TlsBulk
        )
    }

    /// Whether each operation has a connection of its own.
    pub(super) fn connects_each_time(self) -> bool {
        matches!(self, Self::ForwardNew | Self::Connect | Self::TlsHandshakes)
    }

    /// Whether the client sends the body.
    pub(super) fn uploads(self) -> bool {
        matches!(self, Self::BulkUp | Self::ForwardPut)
    }

    /// Whether the client speaks TLS to the proxy, whatever else is said.
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::TlsHandshakes | Self::TlsBulk)
    }

    /// The status that is an answer and not an error.
    pub(super) fn expected_status(self) -> u16 {
        if self == Self::Misses { 403 } else { 200 }
    }
}
