//! A DNS name.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// The longest name without its root dot, in bytes (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest label, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name of a host: one or more labels, in lower case, without the
/// trailing dot. Two names that differ only in case are equal (RFC 4343).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct DomainName(Box<str>);

impl DomainName {
    /// The name in lower case, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no DNS name of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DomainNameError {
    /// Nothing, or only a dot.
    #[error("the name is empty")]
    Empty,
    /// More than 253 bytes.
    #[error("the name is longer than 253 bytes")]
    TooLong,
    /// `a..b`, `.a`.
    #[error("the name has an empty label; remove the extra dot")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    /// `-a.example`, `a-.example`.
    #[error("a label starts or ends with a hyphen")]
    Hyphen,
    /// A letter outside ASCII.
    #[error("the name is not ASCII; write its xn-- form (RFC 5891)")]
    NotAscii,
    /// Any other character.
    #[error(
        "the name has the character {0:?}; only letters, digits, hyphens, underscores and dots may stand in it"
    )]
    Character(char),
    /// `10.1.2`, `1.2.3.400`: a last label of digits makes readers take the
    /// name for an IPv4 address.
    #[error(
        "the last label is a number; write a name, or an address with four octets of at most 255"
    )]
    NumericEnd,
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    /// Reads letters, digits, hyphens and underscores in labels (RFC 952,
    /// RFC 1123 section 2.1; the underscore is common in private zones). One
    /// trailing dot is dropped.
    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(DomainNameError::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(character) = name.chars().find(|&character| !allowed(character)) {
            return Err(if character.is_ascii() {
                DomainNameError::Character(character)
            } else {
                DomainNameError::NotAscii
            });
        }
        if name.len() > MAX_NAME {
            return Err(DomainNameError::TooLong);
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err(DomainNameError::EmptyLabel);
            }
            if label.len() > MAX_LABEL {
                return Err(DomainNameError::LabelTooLong);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(DomainNameError::Hyphen);
            }
        }
        let numeric_end = name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        if numeric_end {
            return Err(DomainNameError::NumericEnd);
        }
        Ok(Self(name.to_ascii_lowercase().into_boxed_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<DomainName, DomainNameError> {
        text.parse()
    }

    #[test]
    fn case_and_the_root_dot_make_no_difference() {
        assert_eq!(name("WWW.Example.COM."), name("www.example.com"));
        assert_eq!(name("database").unwrap().as_str(), "database");
        assert_eq!(name("cafe.de").unwrap().to_string(), "cafe.de");
        assert_eq!(
            name("_sip.example.com").unwrap().to_string(),
            "_sip.example.com"
        );
    }

    #[test]
    fn lengths_end_where_the_wire_format_ends() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert_eq!(name(&longest).unwrap().as_str(), longest);
        assert_eq!(name(&format!("{longest}a")), Err(DomainNameError::TooLong));
        assert_eq!(
            name(&format!("{label}a.de")),
            Err(DomainNameError::LabelTooLong)
        );
    }

    #[test]
    fn each_refusal_says_why() {
        for (text, error) in [
            ("", DomainNameError::Empty),
            (".", DomainNameError::Empty),
            ("..", DomainNameError::EmptyLabel),
            ("a..b", DomainNameError::EmptyLabel),
            (".a", DomainNameError::EmptyLabel),
            ("a.b..", DomainNameError::EmptyLabel),
            ("-a.de", DomainNameError::Hyphen),
            ("a-.de", DomainNameError::Hyphen),
            ("bücher.de", DomainNameError::NotAscii),
            ("a b.de", DomainNameError::Character(' ')),
            ("*.de", DomainNameError::Character('*')),
            ("a.de:80", DomainNameError::Character(':')),
            ("1.2.3.400", DomainNameError::NumericEnd),
            ("10", DomainNameError::NumericEnd),
        ] {
            assert_eq!(name(text), Err(error), "{text:?}");
        }
    }
}
