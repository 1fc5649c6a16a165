//! What was decided, and why.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::guard::Prohibited;

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It passes because of `EGRESS_HTTP_PROXY_MODE=audit`, and would be
    /// denied otherwise.
    WouldDeny,
    /// It is refused.
    Denied,
}

impl Verdict {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::WouldDeny => "would_deny",
            Self::Denied => "denied",
        }
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The rule of this line.
    Rule {
        /// The number of the line; in an `EgressNetworkPolicy`, of the entry.
        line: u32,
    },
    /// No rule matches: what holds then.
    NoRule,
    /// The guard refuses an address.
    Guard(Prohibited),
    /// The host is an address, and `EGRESS_HTTP_PROXY_IP_LITERALS=deny`.
    IpLiteral,
    /// The TLS server name is neither the CONNECT host nor allowed.
    SniMismatch,
    /// The CONNECT host is a name, but the ClientHello names no server.
    SniMissing,
    /// What should be a TLS ClientHello is none.
    NotTls,
}

impl Reason {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule { .. } => "rule",
            Self::NoRule => "no_rule",
            Self::Guard(_) => "destination_ip_prohibited",
            Self::IpLiteral => "ip_literal",
            Self::SniMismatch => "sni_mismatch",
            Self::SniMissing => "sni_missing",
            Self::NotTls => "not_tls",
        }
    }

    /// The error type of the Proxy-Status field (RFC 9209 section 2.3).
    #[must_use]
    pub const fn proxy_error(self) -> &'static str {
        match self {
            Self::Guard(_) => "destination_ip_prohibited",
            _ => "http_request_denied",
        }
    }
}

/// A verdict and its reason. `Display` is the sentence for the client's 403
/// and the operator's `check-url`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    verdict: Verdict,
    reason: Reason,
}

impl Decision {
    pub(super) const fn new(verdict: Verdict, reason: Reason) -> Self {
        Self { verdict, reason }
    }

    /// What happens.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        self.verdict
    }

    /// Whether the request passes.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self.verdict {
            Verdict::Allowed | Verdict::WouldDeny => true,
            Verdict::Denied => false,
        }
    }

    /// Why.
    #[must_use]
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// The line of the rule that decided.
    #[must_use]
    pub const fn line(self) -> Option<u32> {
        match self.reason {
            Reason::Rule { line } => Some(line),
            _ => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verdict {
            Verdict::Allowed => "allowed",
            Verdict::WouldDeny => "allowed in audit mode, else denied",
            Verdict::Denied => "denied",
        })?;
        match self.reason {
            Reason::Rule { line } => write!(f, " by rule {line}"),
            Reason::NoRule => f.write_str(": no rule matches"),
            Reason::Guard(prohibited) => write!(f, " by the guard: {prohibited}"),
            Reason::IpLiteral => {
                f.write_str(": the host is an address and only names are accepted")
            }
            Reason::SniMismatch => {
                f.write_str(": the TLS server name is not the CONNECT host and no rule allows it")
            }
            Reason::SniMissing => f.write_str(": the TLS ClientHello names no server"),
            Reason::NotTls => f.write_str(": the tunnel does not start with a TLS ClientHello"),
        }
    }
}

/// What can be said before the name is resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// This, whatever the name resolves to; the guard still looks at the
    /// addresses.
    Decided(Decision),
    /// The addresses decide: resolve the name, then
    /// [`judge_addresses`](super::Policy::judge_addresses).
    NeedsAddresses,
}

/// What can be said about the addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission<'a> {
    decision: Decision,
    addresses: Cow<'a, [IpAddr]>,
}

impl<'a> Admission<'a> {
    pub(super) const fn new(decision: Decision, addresses: Cow<'a, [IpAddr]>) -> Self {
        Self {
            decision,
            addresses,
        }
    }

    pub(super) const fn allowed(reason: Reason, addresses: Cow<'a, [IpAddr]>) -> Self {
        Self::new(Decision::new(Verdict::Allowed, reason), addresses)
    }

    pub(super) const fn refused(reason: Reason) -> Self {
        Self::new(Decision::new(Verdict::Denied, reason), Cow::Borrowed(&[]))
    }

    /// Whether the request passes, and why.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        self.decision
    }

    /// The addresses to dial, in the order in which they came, and no others.
    /// Empty when the request is denied, or when there were none.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The addresses to dial, borrowed unless some were left out.
    #[must_use]
    pub fn into_addresses(self) -> Cow<'a, [IpAddr]> {
        self.addresses
    }
}
