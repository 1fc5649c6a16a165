//! The `Connection` field and what it says of a message (RFC 9110 section
//! 7.6.1).

use super::fields::members;
use super::request::Version;

/// What the `Connection` fields of one message say together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Whether other fields are named, which then concern this hop alone.
    names_fields: bool,
}

impl ConnectionOptions {
    /// Adds the value of one field line.
    pub(super) fn add(&mut self, value: &[u8]) {
        for option in members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else {
                self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                self.names_fields = true;
            }
        }
    }

    /// Whether the sender keeps the connection for another message (RFC 9112
    /// section 9.3).
    pub(super) fn persists(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }

    pub(super) fn asks_to_upgrade(self) -> bool {
        self.upgrade
    }

    pub(super) fn names_fields(self) -> bool {
        self.names_fields
    }
}

/// Whether the `Connection` field `value` names the field `name`.
pub(super) fn nominates(value: &[u8], name: &str) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(values: &[&[u8]]) -> ConnectionOptions {
        let mut options = ConnectionOptions::default();
        for value in values {
            options.add(value);
        }
        options
    }

    #[test]
    fn versions_differ_in_what_silence_means() {
        let silent = options(&[]);
        assert!(silent.persists(Version::Http11));
        assert!(!silent.persists(Version::Http10));
        assert!(options(&[b"Keep-Alive"]).persists(Version::Http10));
        assert!(!options(&[b"close"]).persists(Version::Http11));
        assert!(!options(&[b"keep-alive", b"close"]).persists(Version::Http10));
    }

    #[test]
    fn other_options_name_fields() {
        let both = options(&[b"keep-alive, Upgrade", b" X-Hop ,"]);
        assert!(both.asks_to_upgrade() && both.names_fields());
        assert!(!options(&[b"close"]).names_fields());
        assert!(nominates(b"close, X-Hop", "x-hop"));
        assert!(!nominates(b"close, X-Hop", "x-ho"));
    }
}
