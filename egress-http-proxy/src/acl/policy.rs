//! The decision: rules, guard, literals and mode applied to a target.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::slice;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::client_hello::ClientHello;
use super::decision::{Admission, Decision, Judgement, Reason, Verdict};
use super::guard::{Guard, Prohibited};
use super::judged::{JudgedAddress, canonical};
use super::rules::{Action, Found, Rules};
use super::target::{Host, Target};

/// `EGRESS_HTTP_PROXY_MODE`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What is denied is refused.
    #[default]
    Enforce,
    /// Only the guard refuses; what would be denied is said.
    Audit,
}

/// `EGRESS_HTTP_PROXY_IP_LITERALS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Literals {
    /// A host that is an address is judged by the rules.
    #[default]
    Allow,
    /// A host that is an address is refused.
    Deny,
}

/// `EGRESS_HTTP_PROXY_SNI`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sni {
    /// The server name of a tunnel is not looked at.
    #[default]
    Off,
    /// It must be the CONNECT host or one that the rules allow.
    Match,
}

/// Gives each setting its words.
macro_rules! words {
    ($setting:ident, $error:ident, $message:literal, $doc:literal, $($text:literal => $variant:ident),+) => {
        impl fmt::Display for $setting {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)+
                })
            }
        }

        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
        #[error($message)]
        pub struct $error;

        impl FromStr for $setting {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($error),
                }
            }
        }
    };
}

words!(Mode, ModeError, "is not a mode; write enforce or audit", "A text that is no mode.",
    "enforce" => Enforce, "audit" => Audit);
words!(Literals, LiteralsError, "is neither allow nor deny; write allow or deny", "A text that is neither `allow` nor `deny`.",
    "allow" => Allow, "deny" => Deny);
words!(Sni, SniError, "is neither off nor match; write off or match", "A text that is neither `off` nor `match`.",
    "off" => Off, "match" => Match);

/// Everything that decides about a target. Immutable: a reload makes a new
/// one.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    guard: Guard,
    own: Box<[IpAddr]>,
    literals: Literals,
    mode: Mode,
}

impl Policy {
    /// The policy of `rules` with every setting at its default.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            guard: Guard::default(),
            own: Box::default(),
            literals: Literals::default(),
            mode: Mode::default(),
        }
    }

    /// Sets the guard. `own` are the pod's addresses.
    #[must_use]
    pub fn guard(mut self, guard: Guard, own: impl IntoIterator<Item = IpAddr>) -> Self {
        self.guard = guard;
        self.own = own.into_iter().map(canonical).collect();
        self
    }

    /// Sets what happens to address literals.
    #[must_use]
    pub fn literals(mut self, literals: Literals) -> Self {
        self.literals = literals;
        self
    }

    /// Sets the mode.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Judges what needs no look-up: an address in full, a name by the rules.
    ///
    /// A name needs its addresses when an address rule that could turn the
    /// verdict stands before the rule that decides by name. A name that is
    /// denied without one is never looked up, so that nothing leaks through
    /// DNS.
    #[must_use]
    pub fn judge(&self, target: &Target) -> Judgement {
        let name = match target.host() {
            Host::Address(address) => {
                let admission = self.judge_addresses(target, slice::from_ref(address));
                return Judgement::Decided(admission.decision());
            }
            Host::Name(name) => name,
        };
        let by_name = self.rules.first_for_name(name.as_str(), target.port());
        let action = self.action_of(by_name);
        let turned = self
            .rules
            .first_address_rule(action.opposite(), target.port());
        let before = |turned: Found| by_name.is_none_or(|by_name| turned.index() < by_name.index());
        if turned.is_some_and(before) {
            return Judgement::NeedsAddresses;
        }
        Judgement::Decided(match action {
            Action::Allow => Decision::new(Verdict::Allowed, reason_of(by_name)),
            Action::Deny => self.deny(reason_of(by_name)),
        })
    }

    /// Judges the addresses of a target's host, and names those to dial. Call
    /// it before every dial, also when [`judge`](Self::judge) has allowed the
    /// name: the guard looks at addresses only.
    ///
    /// `addresses` is what the name resolved to; nothing, when it did not
    /// resolve, which no address rule matches. For a host that is an address,
    /// it is that address. One address that meets a `!` rule denies the
    /// request; addresses that no rule allows or that the guard refuses are
    /// left out.
    #[must_use]
    pub fn judge_addresses<'a>(&self, target: &Target, addresses: &'a [IpAddr]) -> Admission<'a> {
        let port = target.port();
        let (by_name, literal) = match target.host() {
            Host::Name(name) => (self.rules.first_for_name(name.as_str(), port), false),
            Host::Address(_) => (self.rules.first_for_any(port), true),
        };
        let judged = if literal && self.literals == Literals::Deny {
            Err(Reason::IpLiteral)
        } else {
            self.judge_each(addresses, port, by_name)
        };
        match (judged, self.mode) {
            (Ok(admission), _) => admission,
            (Err(reason), Mode::Enforce) => Admission::refused(reason),
            (Err(reason), Mode::Audit) => self.audited(addresses, port, reason),
        }
    }

    /// # Errors
    /// Why the rules deny the request: some address meets a `!` rule, or none
    /// is allowed.
    fn judge_each<'a>(
        &self,
        addresses: &'a [IpAddr],
        port: u16,
        by_name: Option<Found>,
    ) -> Result<Admission<'a>, Reason> {
        if addresses.is_empty() {
            return match self.action_of(by_name) {
                Action::Allow => Ok(Admission::allowed(reason_of(by_name), Cow::Borrowed(&[]))),
                Action::Deny => Err(reason_of(by_name)),
            };
        }
        let mut reason = None;
        let mut prohibited = None;
        let mut picked = Picked::of(addresses);
        for &address in addresses {
            let judged = JudgedAddress::of(address);
            let found = judged
                .views()
                .filter_map(|view| self.rules.first_for_address(view, port))
                .chain(by_name)
                .min_by_key(|found| found.index());
            match (self.action_of(found), found) {
                (Action::Deny, Some(_)) => return Err(reason_of(found)),
                (Action::Deny, None) => picked.leave_out(),
                (Action::Allow, _) => match self.guarded(judged, port) {
                    Some(refused) => {
                        prohibited.get_or_insert(refused);
                        picked.leave_out();
                    }
                    None => {
                        reason.get_or_insert(reason_of(found));
                        picked.take(judged.dialled());
                    }
                },
            }
        }
        match (reason, prohibited) {
            (Some(reason), _) => Ok(Admission::allowed(reason, picked.into_addresses())),
            (None, Some(prohibited)) => Ok(Admission::refused(Reason::Guard(prohibited))),
            (None, None) => Err(Reason::NoRule),
        }
    }

    /// Lets everything pass but what the guard refuses, although `reason`
    /// denies it.
    fn audited<'a>(&self, addresses: &'a [IpAddr], port: u16, reason: Reason) -> Admission<'a> {
        let mut prohibited = None;
        let mut picked = Picked::of(addresses);
        let mut passed = addresses.is_empty();
        for &address in addresses {
            let judged = JudgedAddress::of(address);
            match self.guarded(judged, port) {
                Some(refused) => {
                    prohibited.get_or_insert(refused);
                    picked.leave_out();
                }
                None => {
                    passed = true;
                    picked.take(judged.dialled());
                }
            }
        }
        match prohibited {
            Some(prohibited) if !passed => Admission::refused(Reason::Guard(prohibited)),
            Some(_) | None => Admission::new(self.deny(reason), picked.into_addresses()),
        }
    }

    /// What the guard has against an address, unless the first address rule
    /// that names it (`::/0` names nothing) allows it.
    fn guarded(&self, judged: JudgedAddress, port: u16) -> Option<Prohibited> {
        judged.views().find_map(|view| {
            self.guard.prohibits(view, &self.own).filter(|_| {
                let naming = self.rules.first_network(view, port);
                naming.is_none_or(|found| found.action() == Action::Deny)
            })
        })
    }

    /// Judges the TLS ClientHello with which a tunnel to `target` starts
    /// (`EGRESS_HTTP_PROXY_SNI=match`). Its server name must be the CONNECT
    /// host or a name that the rules allow on that port; without one, the
    /// CONNECT host must be an address (RFC 6066 section 3 has no server name
    /// for those). A [`ClientHello::Partial`] counts as no TLS: judge it only
    /// when no more will come.
    ///
    /// `None` when nothing speaks against the tunnel.
    #[must_use]
    pub fn judge_sni(&self, target: &Target, hello: &ClientHello) -> Option<Decision> {
        let reason = match (hello, target.host()) {
            (ClientHello::Partial | ClientHello::NotTls, _) => Reason::NotTls,
            (ClientHello::ServerName(None), Host::Address(_)) => return None,
            (ClientHello::ServerName(None), Host::Name(_)) => Reason::SniMissing,
            (ClientHello::ServerName(Some(name)), Host::Name(host)) if name == host => return None,
            (ClientHello::ServerName(Some(name)), _) => {
                let found = self.rules.first_for_name(name.as_str(), target.port());
                match self.action_of(found) {
                    Action::Allow => return None,
                    Action::Deny => Reason::SniMismatch,
                }
            }
        };
        Some(self.deny(reason))
    }

    fn action_of(&self, found: Option<Found>) -> Action {
        found.map_or(self.rules.default_action(), Found::action)
    }

    fn deny(&self, reason: Reason) -> Decision {
        let verdict = match self.mode {
            Mode::Enforce => Verdict::Denied,
            Mode::Audit => Verdict::WouldDeny,
        };
        Decision::new(verdict, reason)
    }
}

fn reason_of(found: Option<Found>) -> Reason {
    found.map_or(Reason::NoRule, |found| Reason::Rule { line: found.line() })
}

/// The addresses that are taken from a list: the list itself as long as none
/// is left out or dialled in another form.
struct Picked<'a> {
    list: &'a [IpAddr],
    seen: usize,
    own: Option<Vec<IpAddr>>,
}

impl<'a> Picked<'a> {
    fn of(list: &'a [IpAddr]) -> Self {
        Self {
            list,
            seen: 0,
            own: None,
        }
    }

    /// Takes the next address, in the form that is dialled.
    fn take(&mut self, dialled: IpAddr) {
        if self.own.is_some() || self.list.get(self.seen) != Some(&dialled) {
            self.owned().push(dialled);
        }
        self.seen += 1;
    }

    /// Leaves the next address out.
    fn leave_out(&mut self) {
        self.owned();
        self.seen += 1;
    }

    fn owned(&mut self) -> &mut Vec<IpAddr> {
        let taken = self.list.get(..self.seen).unwrap_or_default();
        self.own.get_or_insert_with(|| taken.to_vec())
    }

    fn into_addresses(self) -> Cow<'a, [IpAddr]> {
        match self.own {
            None => Cow::Borrowed(self.list),
            Some(own) => Cow::Owned(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_config::{Diagnostics, List};

    fn policy(lines: &str) -> Policy {
        let mut diagnostics = Diagnostics::new();
        let rules = Rules::parse(&List::new("X", lines), &mut diagnostics);
        assert!(diagnostics.errors().is_empty(), "{diagnostics}");
        Policy::new(rules)
    }

    fn target(text: &str) -> Target {
        Target::from_authority(text.as_bytes()).unwrap()
    }

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace()
            .map(|text| text.parse().unwrap())
            .collect()
    }

    /// What is decided about `host:80` whose name resolves to `resolved`: the
    /// judgement before and after it is resolved.
    fn judged(policy: &Policy, host: &str, resolved: &str) -> (String, String) {
        let target = target(&format!("{host}:80"));
        let first = match policy.judge(&target) {
            Judgement::Decided(decision) => decision.to_string(),
            Judgement::NeedsAddresses => "needs addresses".to_owned(),
        };
        let resolved = addresses(resolved);
        let admission = policy.judge_addresses(&target, &resolved);
        let dialled: Vec<_> = admission
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        (first, format!("{} {dialled:?}", admission.decision()))
    }

    #[track_caller]
    fn check(policy: &Policy, host: &str, resolved: &str, first: &str, second: &str) {
        assert_eq!(
            judged(policy, host, resolved),
            (first.to_owned(), second.to_owned()),
            "{host} -> {resolved}"
        );
    }

    #[test]
    fn a_name_is_looked_up_only_when_its_addresses_can_turn_the_verdict() {
        let list = policy("!bad.test\n198.51.100.0/24\n!198.51.0.0/16:443\n*.good.test");
        check(
            &list,
            "bad.test",
            "198.51.100.1",
            "denied by rule 1",
            "denied by rule 1 []",
        );
        check(
            &list,
            "x.good.test",
            "203.0.113.2",
            "allowed by rule 4",
            "allowed by rule 4 [\"203.0.113.2\"]",
        );
        check(
            &list,
            "other.test",
            "198.51.100.1 203.0.113.2",
            "needs addresses",
            "allowed by rule 2 [\"198.51.100.1\"]",
        );
        check(
            &list,
            "other.test",
            "",
            "needs addresses",
            "denied: no rule matches []",
        );
        check(
            &list,
            "other.test",
            "203.0.113.2",
            "needs addresses",
            "denied: no rule matches []",
        );
        let on_443 = list.judge(&target("x.good.test:443"));
        assert_eq!(on_443, Judgement::NeedsAddresses);
        let denials_only = policy("!10.0.0.0/8\n!example.com\nwww.test");
        check(
            &denials_only,
            "exfiltrated.test",
            "203.0.113.2",
            "denied: no rule matches",
            "denied: no rule matches []",
        );
    }

    #[test]
    fn one_denied_address_denies_all() {
        let list = policy("!198.51.100.0/24\n*");
        for resolved in [
            "198.51.100.1 203.0.113.2",
            "203.0.113.2 ::ffff:198.51.100.1",
        ] {
            check(
                &list,
                "multi.test",
                resolved,
                "needs addresses",
                "denied by rule 1 []",
            );
        }
        check(
            &list,
            "one.test",
            "203.0.113.2 203.0.113.3",
            "needs addresses",
            "allowed by rule 2 [\"203.0.113.2\", \"203.0.113.3\"]",
        );
        check(
            &list,
            "nx.test",
            "",
            "needs addresses",
            "allowed by rule 2 []",
        );
    }

    #[test]
    fn what_is_dialled_is_what_was_judged() {
        let list = policy("198.51.100.0/24");
        check(
            &list,
            "mapped.test",
            "::ffff:198.51.100.1",
            "needs addresses",
            "allowed by rule 1 [\"198.51.100.1\"]",
        );
        check(
            &list,
            "nat64.test",
            "64:ff9b::198.51.100.1",
            "needs addresses",
            "allowed by rule 1 [\"64:ff9b::c633:6401\"]",
        );
        let resolved = addresses("198.51.100.1 198.51.100.2");
        let admission = list.judge_addresses(&target("a.test:1"), &resolved);
        assert!(matches!(admission.into_addresses(), Cow::Borrowed(_)));
    }

    #[test]
    fn literals_meet_address_rules_and_wildcards_only() {
        let list = policy("!*.example.com\n!10.0.0.0/8\n!*:25\n*");
        check(
            &list,
            "203.0.113.2",
            "203.0.113.2",
            "allowed by rule 4",
            "allowed by rule 4 [\"203.0.113.2\"]",
        );
        check(
            &list,
            "10.1",
            "10.0.0.1",
            "denied by rule 2",
            "denied by rule 2 []",
        );
        check(
            &list,
            "[64:ff9b::10.0.0.1]",
            "64:ff9b::10.0.0.1",
            "denied by rule 2",
            "denied by rule 2 []",
        );
        let mail = list.judge(&target("203.0.113.2:25"));
        assert_eq!(
            mail,
            Judgement::Decided(Decision::new(Verdict::Denied, Reason::Rule { line: 3 }))
        );
        let names_only = policy("*").literals(Literals::Deny);
        let denied = "denied: the host is an address and only names are accepted";
        check(
            &names_only,
            "203.0.113.2",
            "203.0.113.2",
            denied,
            &format!("{denied} []"),
        );
        check(
            &names_only,
            "a.test",
            "203.0.113.2",
            "allowed by rule 1",
            "allowed by rule 1 [\"203.0.113.2\"]",
        );
    }

    #[test]
    fn the_guard_looks_at_every_address_that_is_dialled() {
        let local = policy("*.test\n*").guard(Guard::Local, addresses("203.0.113.9"));
        let loopback =
            "denied by the guard: 127.0.0.1 is loopback (127.0.0.0/8, RFC 1122 section 3.2.1.3) []";
        for (resolved, decision) in [
            ("127.0.0.1", loopback),
            ("::ffff:127.0.0.1", loopback),
            ("0.0.0.0", loopback),
            ("64:ff9b::127.0.0.1", loopback),
            ("2002:7f00:1::", loopback),
            (
                "127.0.0.1 198.51.100.1",
                "allowed by rule 1 [\"198.51.100.1\"]",
            ),
            ("10.0.0.1", "allowed by rule 1 [\"10.0.0.1\"]"),
            (
                "203.0.113.9",
                "denied by the guard: 203.0.113.9 is an address of this pod []",
            ),
            (
                "::",
                "denied by the guard: ::1 is loopback (::1/128, RFC 4291 section 2.5.3) []",
            ),
        ] {
            check(&local, "a.test", resolved, "allowed by rule 1", decision);
        }
        let off = policy("*").guard(Guard::Off, []);
        check(
            &off,
            "a.test",
            "0.0.0.0",
            "allowed by rule 1",
            "allowed by rule 1 [\"127.0.0.1\"]",
        );
    }

    #[test]
    fn only_a_rule_that_names_the_network_overrides_the_guard() {
        let refused =
            "denied by the guard: 100.64.0.1 is shared address space (100.64.0.0/10, RFC 6598) []";
        for (lines, overrides) in [
            ("100.64.0.0/10\n*", true),
            ("cg.test\n100.64.0.0/16", true),
            ("cg.test\n100.64.0.1", true),
            ("0.0.0.0/0", false),
            ("*", false),
            ("cg.test", false),
            ("cg.test\n100.64.0.0/10:443", false),
            ("cg.test\n!100.64.0.0/16\n100.64.0.0/10", false),
        ] {
            let private = policy(lines).guard(Guard::Private, []);
            let (_, decision) = judged(&private, "cg.test", "100.64.0.1");
            assert_eq!(
                decision.starts_with("allowed"),
                overrides,
                "{lines:?}: {decision}"
            );
            assert!(overrides || decision == refused, "{lines:?}: {decision}");
        }
        // The rule must name what is guarded, not what is wrapped around it.
        let wrapped = policy("64:ff9b::/96\n*").guard(Guard::Local, []);
        let (_, decision) = judged(&wrapped, "a.test", "64:ff9b::7f00:1");
        assert!(decision.starts_with("denied by the guard"), "{decision}");
    }

    #[test]
    fn audit_refuses_only_what_the_guard_refuses() {
        let audit = policy("!bad.test\n!198.51.100.0/24\nok.test")
            .mode(Mode::Audit)
            .literals(Literals::Deny)
            .guard(Guard::Local, []);
        check(
            &audit,
            "bad.test",
            "198.51.100.1 127.0.0.1",
            "allowed in audit mode, else denied by rule 1",
            "allowed in audit mode, else denied by rule 1 [\"198.51.100.1\"]",
        );
        check(
            &audit,
            "ok.test",
            "203.0.113.2 198.51.100.1",
            "needs addresses",
            "allowed in audit mode, else denied by rule 2 [\"203.0.113.2\", \"198.51.100.1\"]",
        );
        check(
            &audit,
            "ok.test",
            "203.0.113.2",
            "needs addresses",
            "allowed by rule 3 [\"203.0.113.2\"]",
        );
        let (_, guarded) = judged(&audit, "bad.test", "127.0.0.1");
        assert!(
            guarded.starts_with("denied by the guard: 127.0.0.1"),
            "{guarded}"
        );
        let literal = "allowed in audit mode, else denied: the host is an address and only names are accepted";
        check(
            &audit,
            "203.0.113.2",
            "203.0.113.2",
            literal,
            &format!("{literal} [\"203.0.113.2\"]"),
        );
        check(
            &audit,
            "nx.test",
            "",
            "allowed in audit mode, else denied: no rule matches",
            "allowed in audit mode, else denied: no rule matches []",
        );
        let decision = audit.judge_addresses(&target("nx.test:80"), &[]).decision();
        assert!(decision.passes());
        assert_eq!(decision.verdict().name(), "would_deny");
        assert_eq!(decision.reason().name(), "no_rule");
    }

    #[test]
    fn the_server_name_is_the_host_or_allowed() {
        let list = policy("a.test\n*.cdn.test:443\n!evil.test\n198.51.100.1");
        let name = |text: &str| ClientHello::ServerName(Some(text.parse().unwrap()));
        for (host, hello, reason) in [
            ("a.test:443", name("a.test"), None),
            ("a.test:443", name("x.cdn.test"), None),
            ("a.test:8443", name("x.cdn.test"), Some("sni_mismatch")),
            ("a.test:443", name("evil.test"), Some("sni_mismatch")),
            ("a.test:443", name("other.test"), Some("sni_mismatch")),
            (
                "a.test:443",
                ClientHello::ServerName(None),
                Some("sni_missing"),
            ),
            ("a.test:443", ClientHello::NotTls, Some("not_tls")),
            ("a.test:443", ClientHello::Partial, Some("not_tls")),
            ("198.51.100.1:443", ClientHello::ServerName(None), None),
            ("198.51.100.1:443", name("evil.test"), Some("sni_mismatch")),
            ("198.51.100.1:443", name("a.test"), None),
            // Needed an address rule to pass, and is its own host.
            ("one.test:443", name("one.test"), None),
        ] {
            let decision = list.judge_sni(&target(host), &hello);
            assert_eq!(
                decision.map(|decision| decision.reason().name()),
                reason,
                "{host} {hello:?}"
            );
            assert!(decision.is_none_or(|decision| !decision.passes()));
        }
        let audit = policy("a.test").mode(Mode::Audit);
        let decision = audit.judge_sni(&target("a.test:443"), &name("b.test"));
        assert_eq!(decision.map(Decision::verdict), Some(Verdict::WouldDeny));
    }

    #[test]
    fn settings_have_their_words() {
        assert_eq!(Mode::Audit.to_string().parse(), Ok(Mode::Audit));
        assert_eq!("enforce".parse(), Ok(Mode::Enforce));
        assert_eq!(Literals::Deny.to_string().parse(), Ok(Literals::Deny));
        assert_eq!("allow".parse(), Ok(Literals::Allow));
        assert_eq!(Sni::Match.to_string().parse(), Ok(Sni::Match));
        assert_eq!("off".parse(), Ok(Sni::Off));
        assert_eq!("on".parse::<Mode>(), Err(ModeError));
        assert_eq!("off".parse::<Literals>(), Err(LiteralsError));
        assert_eq!("on".parse::<Sni>(), Err(SniError));
    }
}
