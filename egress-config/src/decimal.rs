//! Plain decimal numbers.

/// Reads `text` as an unsigned number of ASCII digits without sign, blanks or
/// leading zeros (`080` is 80 to one reader and an octal error to another).
/// `None` as well when it does not fit.
pub(crate) fn plain_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits && !leading_zero {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::plain_decimal;

    #[test]
    fn only_plain_digits_are_numbers() {
        assert_eq!(plain_decimal("0"), Some(0));
        assert_eq!(plain_decimal("65535"), Some(65535));
        for bad in ["", "+1", "-1", " 1", "1 ", "01", "00", "1_000", "0x10", "١"] {
            assert_eq!(plain_decimal(bad), None, "{bad:?}");
        }
        assert_eq!(plain_decimal("99999999999999999999"), None);
    }
}
