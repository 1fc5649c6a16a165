//! What would become of a request.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::acl::{AbsoluteForm, Decision, Host, Policy, Target, TargetError};

/// Reads what a user writes for a target: a URL of `http` or `https`, or
/// `HOST:PORT`.
///
/// # Errors
/// As for a request.
pub(crate) fn target(url: &str) -> Result<Target, TargetError> {
    if let Some(rest) = strip_prefix_ignoring_case(url, "https://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or(rest);
        return match Target::from_authority(authority.as_bytes()) {
            Err(TargetError::NoPort) => {
                Target::from_authority(format!("{authority}:443").as_bytes())
            }
            target => target,
        };
    }
    if url.contains("://") {
        return AbsoluteForm::parse(url.as_bytes()).map(AbsoluteForm::into_target);
    }
    Target::from_authority(url.as_bytes())
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The decision about a target, and all that led to it.
pub(crate) struct Verdict<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) target: Target,
    pub(crate) decision: Decision,
    /// What the name resolved to, or why it did not.
    pub(crate) resolved: Option<Result<Vec<IpAddr>, String>>,
    /// What would be dialled.
    pub(crate) dialled: Vec<IpAddr>,
}

impl Verdict<'_> {
    /// The rule that decided, as it is written.
    fn rule(&self) -> Option<String> {
        let line = self.decision.line()?;
        self.policy
            .rules()
            .of_line(line)
            .map(|rule| rule.to_string())
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}", self.target, self.decision);
        if let Some(rule) = self.rule() {
            text.push_str(&format!(" ({rule})"));
        }
        text.push('\n');
        match (&self.resolved, self.target.host()) {
            (Some(Ok(addresses)), Host::Name(name)) => {
                text.push_str(&format!("{name} resolves to {}\n", list(addresses)));
            }
            (Some(Err(error)), Host::Name(name)) => {
                text.push_str(&format!("{name} does not resolve: {error}\n"));
            }
            _ => {}
        }
        if self.decision.passes() && !self.dialled.is_empty() {
            text.push_str(&format!("would connect to {}\n", list(&self.dialled)));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let (addresses, error) = match &self.resolved {
            Some(Ok(addresses)) => (Some(addresses), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        json!({
            "target": self.target.to_string(),
            "verdict": self.decision.verdict().name(),
            "reason": self.decision.reason().name(),
            "line": self.decision.line(),
            "rule": self.rule(),
            "addresses": addresses,
            "error": error,
            "connects_to": self.dialled,
        })
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_users_write_them() {
        for (url, expected) in [
            ("http://a.test/x?y", "a.test:80"),
            ("https://a.test", "a.test:443"),
            ("HTTPS://A.test/x", "a.test:443"),
            ("https://a.test:8443/", "a.test:8443"),
            ("https://[2001:db8::1]/", "[2001:db8::1]:443"),
            ("a.test:22", "a.test:22"),
        ] {
            assert_eq!(target(url).unwrap().to_string(), expected, "{url}");
        }
        assert_eq!(target("a.test"), Err(TargetError::NoPort));
        assert_eq!(target("ftp://a.test/"), Err(TargetError::Scheme));
    }
}
