//! The fields of a line, as text or as JSON.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serializer;

use crate::logging::Form;

/// Writes fields, each name once, in the form of the log. Nothing is
/// allocated.
#[derive(Debug)]
pub struct Entry<'a> {
    out: &'a mut Vec<u8>,
    form: Form,
}

impl<'a> Entry<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, form: Form) -> Self {
        Self { out, form }
    }

    /// Text of anyone, also of a client's choice.
    pub fn str(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.name(name);
        match self.form {
            Form::Json => write_json(self.out, value),
            Form::Text if is_bare(value.as_bytes()) => {
                self.out.extend_from_slice(value.as_bytes());
            }
            // Quoted as Rust quotes, which leaves no control character.
            Form::Text => write(self.out, format_args!("{value:?}")),
        }
        self
    }

    /// Anything that can be shown, such as an address.
    pub fn display(&mut self, name: &'static str, value: impl fmt::Display) -> &mut Self {
        self.name(name);
        match self.form {
            Form::Json => {
                // Into memory everything can be written.
                let _ = serde_json::Serializer::new(&mut *self.out).collect_str(&value);
            }
            Form::Text => {
                let start = self.out.len();
                write(self.out, format_args!("{value}"));
                if !self.out.get(start..).is_some_and(is_bare) {
                    self.out.truncate(start);
                    write(self.out, format_args!("{:?}", value.to_string()));
                }
            }
        }
        self
    }

    /// An address.
    pub fn ip(&mut self, name: &'static str, value: IpAddr) -> &mut Self {
        let IpAddr::V4(value) = value else {
            return self.display(name, value);
        };
        self.name(name);
        self.quote();
        self.ipv4(value);
        self.quote();
        self
    }

    /// An address with its port.
    pub fn socket(&mut self, name: &'static str, value: SocketAddr) -> &mut Self {
        let SocketAddr::V4(value) = value else {
            return self.display(name, value);
        };
        self.name(name);
        self.quote();
        self.ipv4(*value.ip());
        self.out.push(b':');
        self.digits(value.port());
        self.quote();
        self
    }

    /// A count, a port, a status.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.name(name);
        self.digits(value);
        self
    }

    /// A time span in milliseconds with three decimals; end its name in `_ms`.
    pub fn duration_ms(&mut self, name: &'static str, value: Duration) -> &mut Self {
        self.name(name);
        self.digits(value.as_millis());
        let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or_default();
        let micros = value.subsec_micros();
        let decimals = [digit(micros / 100), digit(micros / 10), digit(micros)];
        self.out.push(b'.');
        self.out.extend_from_slice(&decimals);
        self
    }

    /// Yes or no.
    pub fn bool(&mut self, name: &'static str, value: bool) -> &mut Self {
        self.name(name);
        write(self.out, format_args!("{value}"));
        self
    }

    fn ipv4(&mut self, value: Ipv4Addr) {
        let [first, rest @ ..] = value.octets();
        self.digits(first);
        for octet in rest {
            self.out.push(b'.');
            self.digits(octet);
        }
    }

    /// Every line has a dozen numbers: more than the rest of it costs by the
    /// formatter, which can do widths and signs.
    fn digits(&mut self, value: impl itoa::Integer) {
        let mut digits = itoa::Buffer::new();
        self.out.extend_from_slice(digits.format(value).as_bytes());
    }

    /// Around what is text in JSON, and no more than a word.
    fn quote(&mut self) {
        if let Form::Json = self.form {
            self.out.push(b'"');
        }
    }

    fn name(&mut self, name: &'static str) {
        match self.form {
            Form::Json => {
                // A word of ours: nothing in it needs an escape.
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Form::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(b'=');
            }
        }
    }
}

/// Whether the text needs no quotes beside other fields.
fn is_bare(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

pub(super) fn write_json(out: &mut Vec<u8>, text: &str) {
    // Into memory every string can be written.
    let _ = serde_json::to_writer(out, text);
}

fn write(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Memory takes everything.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use serde_json::{Value, json};

    use super::*;

    fn written(form: Form, fields: impl FnOnce(&mut Entry<'_>)) -> String {
        let mut out = Vec::new();
        fields(&mut Entry::new(&mut out, form));
        String::from_utf8(out).unwrap()
    }

    fn all(entry: &mut Entry<'_>) {
        entry
            .str("host", "www.example.com")
            .str("path", "a \"b\"\n\u{1b}[31m")
            .display("address", IpAddr::V6(Ipv6Addr::LOCALHOST))
            .display("error", "two words")
            .ip("ipv4", IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)))
            .ip("ipv6", IpAddr::V6(Ipv6Addr::LOCALHOST))
            .socket("client", ([10, 0, 0, 7], 80).into())
            .socket("client6", (Ipv6Addr::LOCALHOST, 65_535).into())
            .duration_ms("none_ms", Duration::ZERO)
            .duration_ms("some_ms", Duration::from_nanos(1_999_050_999))
            .number("bytes", u64::MAX)
            .duration_ms("took_ms", Duration::from_micros(12_034))
            .bool("reused", true)
            .str("empty", "");
    }

    #[test]
    fn text() {
        let expected = r#" host=www.example.com path="a \"b\"\n\u{1b}[31m" address=::1 error="two words" ipv4=192.0.2.100 ipv6=::1 client=10.0.0.7:80 client6=[::1]:65535 none_ms=0.000 some_ms=1999.050 bytes=18446744073709551615 took_ms=12.034 reused=true empty="""#;
        assert_eq!(written(Form::Text, all), expected);
    }

    #[test]
    fn json() {
        let text = written(Form::Json, all);
        let object: Value = serde_json::from_str(&format!("{{{}}}", &text[1..])).unwrap();
        assert_eq!(
            object,
            json!({
                "host": "www.example.com",
                "path": "a \"b\"\n\u{1b}[31m",
                "address": "::1",
                "error": "two words",
                "ipv4": "192.0.2.100",
                "ipv6": "::1",
                "client": "10.0.0.7:80",
                "client6": "[::1]:65535",
                "none_ms": 0.0,
                "some_ms": 1999.05,
                "bytes": u64::MAX,
                "took_ms": 12.034,
                "reused": true,
                "empty": "",
            })
        );
        assert!(!text.contains(['\n', '\u{1b}']));
    }

    #[test]
    fn what_looks_like_a_field_is_quoted() {
        let text = written(Form::Text, |entry| {
            entry.str("host", "a=b").str("other", "\\").str("utf8", "é");
        });
        assert_eq!(text, r#" host="a=b" other="\\" utf8="é""#);
    }
}
