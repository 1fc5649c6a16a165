//! Durations as users write them.

use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::decimal::plain_decimal;

/// A text that is no duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DurationError {
    /// Not a number with a known unit.
    #[error(
        "is not a duration; write a number and a unit, such as 400ms, 2s, 5m or 1h (a number alone is seconds)"
    )]
    NotADuration,
    /// More milliseconds than 64 bits hold.
    #[error("the duration is too long")]
    TooLong,
}

/// Reads a decimal number followed by `ms`, `s`, `m` or `h`; a number alone
/// is seconds.
///
/// # Errors
/// [`DurationError`] names what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(DurationError::NotADuration),
    };
    let all_digits_too_large = number.len() > 19 && !number.starts_with('0');
    match plain_decimal(number) {
        Some(number) => number
            .checked_mul(milliseconds)
            .map(Duration::from_millis)
            .ok_or(DurationError::TooLong),
        None if all_digits_too_large => Err(DurationError::TooLong),
        None => Err(DurationError::NotADuration),
    }
}

/// Writes a duration in the largest unit that holds it exactly, as
/// [`parse_duration`] reads it. Parts of a millisecond are dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds != 0 && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

/// Serialises a duration as [`format_duration`] writes it, for
/// `#[serde(serialize_with = ...)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    format_duration(*duration).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, milliseconds) in [
            ("400ms", 400),
            ("2s", 2_000),
            ("25", 25_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0ms", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn each_refusal_says_why() {
        for bad in [
            "", "s", "1.5s", "-1s", "1 s", "1S", "1us", "01s", "1h30m", "soon",
        ] {
            assert_eq!(
                parse_duration(bad),
                Err(DurationError::NotADuration),
                "{bad:?}"
            );
        }
        for bad in ["18446744073709551615h", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), Err(DurationError::TooLong), "{bad:?}");
        }
    }

    #[test]
    fn the_largest_exact_unit_is_written() {
        for text in ["400ms", "1500ms", "2s", "90s", "5m", "1h", "0ms"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
    }
}
