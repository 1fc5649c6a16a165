//! Why a name has no addresses.

use std::io;
use std::sync::Arc;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::ResponseCode;
use thiserror::Error;

/// Why a look-up gave no address. From the least to the most telling, where
/// several name servers failed in different ways.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Error)]
pub enum LookupError {
    /// No name server could be sent a question.
    #[error("no name server could be asked")]
    NoNameServer,
    /// Anything else: the cause.
    #[error("name server: {0}")]
    Other(Arc<str>),
    /// No name server answered in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// REFUSED.
    #[error("name server refused the question")]
    Refused,
    /// SERVFAIL.
    #[error("name server failed (SERVFAIL)")]
    ServerFailure,
    /// NXDOMAIN.
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    /// The name exists, without an address.
    #[error("the name has no address")]
    NoAddress,
}

impl LookupError {
    /// A stable word in `snake_case`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoNameServer => "no_name_server",
            Self::Other(_) => "other",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::ServerFailure => "server_failure",
            Self::NoSuchName => "no_such_name",
            Self::NoAddress => "no_address",
        }
    }

    /// Whether this is what the DNS says about the name, and not a failure to
    /// ask it.
    #[cfg(test)]
    pub(super) fn is_dns_answer(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoAddress)
    }

    pub(super) fn of_code(code: ResponseCode) -> Self {
        match code {
            ResponseCode::ServFail => Self::ServerFailure,
            ResponseCode::Refused => Self::Refused,
            ResponseCode::NXDomain => Self::NoSuchName,
            code => Self::Other(code.to_str().into()),
        }
    }

    pub(super) fn of_exchange(error: &NetError) -> Self {
        match error {
            NetError::Timeout => Self::TimedOut,
            NetError::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut => Self::TimedOut,
                io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::ConnectionRefused => Self::NoNameServer,
                _ => Self::Other(error.to_string().into()),
            },
            error => Self::Other(error.to_string().into()),
        }
    }
}

/// Why there is no resolver.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}; a pod has it by its dnsPolicy")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It names no name server, or has a line that cannot be read.
    #[error("{path} cannot be used: {cause}; a pod has it by its dnsPolicy and dnsConfig")]
    Unusable {
        /// The file.
        path: &'static str,
        /// Why.
        cause: Box<str>,
    },
}
