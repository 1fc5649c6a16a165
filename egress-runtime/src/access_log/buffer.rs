//! The lines of one worker that wait for the writer.

use std::time::SystemTime;

use super::entry::{Entry, write_json};
use super::stamp::Stamp;
use crate::logging::Form;

/// Bytes with which a buffer is worth a write.
const FULL_BYTES: usize = 32 * 1024;
/// Bytes from which lines are dropped.
const MOST_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Buffer {
    lines: Vec<u8>,
    stamp: Stamp,
    form: Form,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The first: the writer does not know yet that there are some.
    First,
    Further,
    /// The one that makes a write worth while.
    Full,
    Dropped,
}

impl Buffer {
    pub(super) fn new(form: Form) -> Self {
        Self {
            lines: Vec::new(),
            stamp: Stamp::default(),
            form,
        }
    }

    pub(super) fn add(
        &mut self,
        time: SystemTime,
        message: &str,
        fields: impl FnOnce(&mut Entry<'_>),
    ) -> Added {
        let before = self.lines.len();
        if before >= MOST_BYTES {
            return Added::Dropped;
        }
        match self.form {
            Form::Text => {
                self.stamp.write(&mut self.lines, time);
                self.lines.extend_from_slice(b"  INFO ");
                self.lines.extend_from_slice(message.as_bytes());
            }
            Form::Json => {
                self.lines.extend_from_slice(br#"{"time":""#);
                self.stamp.write(&mut self.lines, time);
                let rest = br#"","level":"info","message":"#;
                self.lines.extend_from_slice(rest);
                write_json(&mut self.lines, message);
            }
        }
        fields(&mut Entry::new(&mut self.lines, self.form));
        let end: &[u8] = match self.form {
            Form::Text => b"\n",
            Form::Json => b"}\n",
        };
        self.lines.extend_from_slice(end);
        if before == 0 {
            Added::First
        } else if before < FULL_BYTES && self.lines.len() >= FULL_BYTES {
            Added::Full
        } else {
            Added::Further
        }
    }

    /// Gives the lines for an empty `spare`, whose memory is used again unless
    /// it is much.
    pub(super) fn take(&mut self, spare: &mut Vec<u8>) {
        spare.clear();
        spare.shrink_to(2 * FULL_BYTES);
        std::mem::swap(&mut self.lines, spare);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const TIME: Duration = Duration::from_millis(1_709_210_096_007);

    fn line(form: Form) -> String {
        let mut buffer = Buffer::new(form);
        let added = buffer.add(UNIX_EPOCH + TIME, "tunnel", |entry| {
            entry.number("status", 200);
        });
        assert_eq!(added, Added::First);
        let mut lines = Vec::new();
        buffer.take(&mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn lines_look_like_those_of_the_logs() {
        assert_eq!(
            line(Form::Text),
            "2024-02-29T12:34:56.007Z  INFO tunnel status=200\n"
        );
        assert_eq!(
            line(Form::Json),
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"info\",\
             \"message\":\"tunnel\",\"status\":200}\n"
        );
    }

    #[test]
    fn tells_when_it_is_full_and_drops_beyond_the_most() {
        let mut buffer = Buffer::new(Form::Json);
        let mut add = || buffer.add(UNIX_EPOCH, "x", |_| {});
        assert_eq!(add(), Added::First);
        let mut full = 0;
        let mut further = 0;
        loop {
            match add() {
                Added::First => panic!("it has lines"),
                Added::Further => further += 1,
                Added::Full => full += 1,
                Added::Dropped => break,
            }
        }
        assert_eq!(full, 1);
        assert!(further > 1000);
        let mut lines = Vec::new();
        buffer.take(&mut lines);
        assert!(lines.len() >= MOST_BYTES && lines.len() < MOST_BYTES + 200);
        assert!(lines.ends_with(b"}\n"));
        assert_eq!(buffer.add(UNIX_EPOCH, "x", |_| {}), Added::First);
        buffer.take(&mut lines);
        assert!(buffer.lines.capacity() <= 2 * FULL_BYTES);
    }
}
