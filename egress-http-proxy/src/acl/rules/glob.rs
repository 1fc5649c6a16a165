//! Patterns of names.

use globset::{Glob, GlobBuilder};
use thiserror::Error;

use crate::acl::inet_aton;

/// The longest pattern, in bytes: enough for any name, and for no surprise.
const MAX_PATTERN: usize = 1024;

/// Whether a text is a pattern rather than a name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}'])
}

/// Why a text is no pattern of names.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum GlobError {
    #[error("the pattern is longer than {MAX_PATTERN} bytes")]
    TooLong,
    #[error("the pattern has an empty label; remove the extra dot")]
    EmptyLabel,
    #[error("'**' is no pattern; write *.DOMAIN for a domain with all its subdomains")]
    DoubleStar,
    #[error("the pattern has the character {0:?}, which no name has")]
    Character(char),
    #[error("a label starts or ends with a hyphen, which no name does")]
    Hyphen,
    #[error("the pattern matches every name of some length; name a domain in it")]
    Everything,
    #[error("the pattern looks like an address; write a network such as 192.0.2.0/24")]
    Address,
    #[error("'{label}': {reason}")]
    Syntax { label: String, reason: String },
}

/// Reads a pattern: labels with `*` (any characters), `?` (one character),
/// `[a-z]`, `[!0-9]` and `{eu,us}`. None of them crosses a dot; a label that
/// is `*` is one label of any text. Gives the pattern in lower case, without
/// a trailing dot.
pub(super) fn parse_pattern(text: &str) -> Result<String, GlobError> {
    let pattern = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if pattern.len() > MAX_PATTERN {
        return Err(GlobError::TooLong);
    }
    if pattern.contains("**") {
        return Err(GlobError::DoubleStar);
    }
    for label in pattern.split('.') {
        check_label(label)?;
    }
    let numeric = |label: &str| {
        label
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'*')
    };
    if pattern.split('.').all(numeric) && pattern.contains(|c: char| c.is_ascii_digit()) {
        return Err(GlobError::Address);
    }
    if !pattern.contains(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err(GlobError::Everything);
    }
    if inet_aton::ends_in_number(&pattern) {
        return Err(GlobError::Address);
    }
    Ok(pattern)
}

fn check_label(label: &str) -> Result<(), GlobError> {
    if label.is_empty() {
        return Err(GlobError::EmptyLabel);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(GlobError::Hyphen);
    }
    let mut in_class = false;
    let mut in_braces = 0_u32;
    let mut before = ' ';
    for character in label.chars() {
        match character {
            '[' if !in_class => in_class = true,
            ']' if in_class => in_class = false,
            '{' if !in_class => in_braces += 1,
            '}' if !in_class => in_braces = in_braces.saturating_sub(1),
            ',' if in_braces > 0 && !in_class => {}
            '!' | '^' if in_class && before == '[' => {}
            '*' | '?' if !in_class => {}
            '-' | '_' => {}
            _ if character.is_ascii_alphanumeric() => {}
            _ => return Err(GlobError::Character(character)),
        }
        before = character;
    }
    // What has no more than `*` and `?` is always a pattern.
    if label.contains(['[', ']', '{', '}']) {
        compile(label).map_err(|error| GlobError::Syntax {
            label: label.to_owned(),
            reason: error.kind().to_string(),
        })?;
    }
    Ok(())
}

/// The matcher of one label.
pub(super) fn compile(label: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(label)
        .backslash_escape(false)
        .empty_alternates(true)
        .build()
}

/// A pattern that matches whatever `label` matches, and perhaps more, but that
/// a set finds by its literal text instead of a regular expression: `api-*`
/// for `api-*-eu`. `None` when there is none.
pub(super) fn candidate(label: &str) -> Option<String> {
    if label.contains(['[', ']', '{', '}']) {
        return None;
    }
    let wild = ['*', '?'];
    let prefix = label.split(wild).next().unwrap_or_default();
    let suffix = label.rsplit(wild).next().unwrap_or_default();
    match (prefix.len(), suffix.len()) {
        (0, 0) => None,
        (before, behind) if before >= behind => Some(format!("{prefix}*")),
        _ => Some(format!("*{suffix}")),
    }
}

/// Whether a label matches a pattern of nothing but text, `*` and `?`.
pub(super) fn matches_wildcards(pattern: &str, label: &str) -> bool {
    let mut pattern = pattern.as_bytes();
    let mut label = label.as_bytes();
    // Behind the last `*`, and what it may still swallow.
    let mut retry = None;
    loop {
        match (pattern, label) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                pattern = rest;
                retry = Some((rest, label));
            }
            ([b'?', rest @ ..], [_, left @ ..]) => (pattern, label) = (rest, left),
            ([a, rest @ ..], [b, left @ ..]) if a == b => (pattern, label) = (rest, left),
            _ => match retry {
                Some((rest, [_, left @ ..])) => {
                    (pattern, label) = (rest, left);
                    retry = Some((rest, left));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_one_spelling() {
        for (text, pattern) in [
            ("api-*.example.com", "api-*.example.com"),
            ("API-*.Example.COM.", "api-*.example.com"),
            ("s3.*.example.com", "s3.*.example.com"),
            ("db[0-9].example.com", "db[0-9].example.com"),
            ("db[!0-9].example.com", "db[!0-9].example.com"),
            ("{api,www}{,-eu}.example.com", "{api,www}{,-eu}.example.com"),
            ("w?w.example.com", "w?w.example.com"),
            ("intranet-*", "intranet-*"),
            ("_*.example.com", "_*.example.com"),
            ("example.*", "example.*"),
        ] {
            assert_eq!(parse_pattern(text).as_deref(), Ok(pattern), "{text}");
        }
    }

    #[test]
    fn each_refusal_says_why() {
        use GlobError as E;
        for (text, error) in [
            ("**", E::DoubleStar),
            ("**.example.com", E::DoubleStar),
            ("a**b.example.com", E::DoubleStar),
            ("*.*", E::Everything),
            ("?", E::Everything),
            ("*..com", E::EmptyLabel),
            ("*.", E::Everything),
            ("-*.com", E::Hyphen),
            ("*-.com", E::Hyphen),
            ("10.*", E::Address),
            ("10.1.2.*", E::Address),
            ("*.1", E::Address),
            ("*a.10", E::Address),
            ("a,b*.com", E::Character(',')),
            ("a b*.com", E::Character(' ')),
            ("a[b c].com", E::Character(' ')),
            ("bü*.com", E::Character('ü')),
            ("a\\*.com", E::Character('\\')),
            ("a/*.com", E::Character('/')),
            ("!*.com", E::Character('!')),
            ("a].com*", E::Character(']')),
            ("a[[b]].com", E::Character('[')),
        ] {
            assert_eq!(parse_pattern(text), Err(error), "{text}");
        }
        for text in ["a[.com", "a{b.com", "a{b.c}.com", "a[z-a].com", "[].com"] {
            let error = parse_pattern(text);
            assert!(matches!(error, Err(E::Syntax { .. })), "{text}: {error:?}");
        }
        assert_eq!(parse_pattern(&"*a".repeat(513)), Err(E::TooLong));
    }

    #[test]
    fn wildcards_match_any_text() {
        for (pattern, matching, not) in [
            ("a*", &["a", "ab", "a-b-c"][..], &["", "b", "ba"][..]),
            ("*a", &["a", "ba"], &["", "ab"]),
            ("a*b", &["ab", "a-b", "abab"], &["a", "aba", "b"]),
            ("a*b*c", &["abc", "a-b-c", "abbcc"], &["acb", "ab", "abcd"]),
            ("*a*", &["a", "bab"], &["", "b"]),
            ("?", &["a"], &["", "ab"]),
            ("a?c*", &["abc", "a-cd"], &["ac", "abd"]),
            ("*?a", &["ba", "aa"], &["a"]),
        ] {
            let compiled = compile(pattern).unwrap().compile_matcher();
            for (labels, expected) in [(matching, true), (not, false)] {
                for label in labels {
                    assert_eq!(
                        matches_wildcards(pattern, label),
                        expected,
                        "{pattern} {label}"
                    );
                    assert_eq!(compiled.is_match(label), expected, "{pattern} {label}");
                }
            }
        }
    }

    #[test]
    fn a_candidate_is_found_by_its_text() {
        for (label, expected) in [
            ("api-*", Some("api-*")),
            ("api-*-eu", Some("api-*")),
            ("a*-eu", Some("*-eu")),
            ("*b", Some("*b")),
            ("a?", Some("a*")),
            ("*a*", None),
            ("?", None),
            ("a[b]c", None),
            ("{a,b}c", None),
        ] {
            assert_eq!(candidate(label).as_deref(), expected, "{label}");
        }
    }
}
