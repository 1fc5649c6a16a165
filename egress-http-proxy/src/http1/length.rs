//! How long a body is (RFC 9112 section 6.3).

/// The length of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// So many bytes; none for a message without a body.
    Exactly(u64),
    /// What the chunked coding says.
    Chunked,
    /// All until the sender closes; responses only.
    UntilClose,
}

impl BodyLength {
    /// A message without a body.
    pub const NONE: Self = Self::Exactly(0);

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Reads a `Content-Length`: digits alone (RFC 9110 section 8.6).
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    // 19 digits always fit; no body is 10^19 bytes long.
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(length * 10 + digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_length_is_digits_alone() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"0042"), Some(42));
        assert_eq!(
            content_length(b"9999999999999999999"),
            Some(9_999_999_999_999_999_999)
        );
        for bad in [
            &b""[..],
            b"+3",
            b"-1",
            b"0x3",
            b"3 ",
            b"3,3",
            b"\xd9\xa3",
            b"10000000000000000000",
        ] {
            assert_eq!(content_length(bad), None, "{bad:?}");
        }
    }
}
