//! Raw attributes, for expressions that the crate has no type for.

use netlink_packet_core::DefaultNla;

/// An attribute with a big-endian number, as nftables wants all of them.
pub(super) fn be32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// An attribute with one byte.
pub(super) fn byte(kind: u16, value: u8) -> DefaultNla {
    DefaultNla::new(kind, vec![value])
}

/// A comment as nft(8) stores it in user data: type 0
/// (`NFTNL_UDATA_RULE_COMMENT`), length, text with a closing NUL.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![0, length];
    bytes.extend(text.iter().take(usize::from(length) - 1));
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_a_typed_string_with_its_end() {
        assert_eq!(comment("fallback"), b"\x00\x09fallback\0");
        assert_eq!(comment(""), b"\x00\x01\0");
    }

    #[test]
    fn a_comment_that_is_too_long_is_cut() {
        let bytes = comment(&"x".repeat(300));
        assert_eq!(bytes.len(), 2 + 255);
        assert_eq!((bytes[1], bytes[256]), (255, 0));
    }
}
