//! The time of a line.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::logging::Timestamp;

/// Characters up to and with the point before the milliseconds.
const SECONDS: usize = "2006-01-02T15:04:05.".len();

/// Formats times as the logs do; most lines fall into the second of the line
/// before.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: u64,
    text: String,
}

impl Stamp {
    pub(super) fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text.clear();
            // Strings take everything.
            let _ = write!(self.text, "{}", Timestamp::at(time));
            self.text.truncate(SECONDS);
        }
        out.extend_from_slice(self.text.as_bytes());
        let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
        let milliseconds = since.subsec_millis();
        out.extend_from_slice(&[
            digit(milliseconds / 100),
            digit(milliseconds / 10),
            digit(milliseconds),
            b'Z',
        ]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn writes_what_the_logs_write() {
        let mut stamp = Stamp::default();
        for milliseconds in [0, 7, 80, 999, 1000, 1_709_210_096_007, 1_709_210_096_987, 5] {
            let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
            let mut out = Vec::new();
            stamp.write(&mut out, time);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, Timestamp::at(time).to_string());
        }
    }
}
