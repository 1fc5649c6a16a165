//! Where events go.

use std::io::{self, IsTerminal};

use egress_config::{LogFormat, LogLevel};
use thiserror::Error;
use tracing::Dispatch;
use tracing::dispatcher::set_global_default;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::{self, MakeWriter};

use super::json::JsonLine;
use super::timestamp::Clock;

/// Logging was set up before in this process.
#[derive(Debug, Error)]
#[error("logging is already set up in this process")]
pub struct AlreadyInstalled;

/// Sends the events of the whole process from `level` upwards to stderr.
/// [`LogFormat::Auto`] is text when stderr is a terminal, else JSON.
///
/// # Errors
/// When the process has a destination for its events already.
pub fn init(level: LogLevel, format: LogFormat) -> Result<(), AlreadyInstalled> {
    let dispatch = dispatch(level, Form::decide(format), io::stderr);
    set_global_default(dispatch).map_err(|_| AlreadyInstalled)
}

/// A [`LogFormat`] that has been decided.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

impl Form {
    /// [`LogFormat::Auto`] is text when stderr is a terminal, else JSON.
    pub(crate) fn decide(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
            LogFormat::Auto if io::stderr().is_terminal() => Self::Text,
            LogFormat::Auto => Self::Json,
        }
    }
}

fn dispatch<W>(level: LogLevel, form: Form, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = fmt::Subscriber::builder()
        .with_max_level(filter(level))
        // A failed write would be reported with eprintln!, which panics when
        // the reader of stderr has gone away.
        .log_internal_errors(false)
        .with_writer(writer);
    match form {
        Form::Text => builder.with_timer(Clock).with_target(false).finish().into(),
        Form::Json => builder.event_format(JsonLine).finish().into(),
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::dispatcher::with_default;

    use super::*;

    /// What was logged, and in how many writes.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<String>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.lock().unwrap().push(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, form: Form, events: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        with_default(&dispatch(level, form, move || writer.clone()), events);
        let writes = sink.0.lock().unwrap();
        writes.clone()
    }

    /// Replaces the timestamp, after checking its form, by `NOW`.
    fn timeless(line: &str) -> String {
        let start = line.find("20").expect("a year");
        let (before, rest) = line.split_at(start);
        let (time, after) = rest.split_at(24);
        let form: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(form, "0000-00-00T00:00:00.000Z");
        format!("{before}NOW{after}")
    }

    #[test]
    fn json_line() {
        let lines = logged(LogLevel::Debug, Form::Json, || {
            let cause = io::Error::other("no \"route\"\n");
            tracing::warn!(
                port = 8080_u16,
                offset = -1,
                share = 0.5,
                on = true,
                address = %"192.0.2.1",
                list = ?["a"],
                error = &cause as &dyn std::error::Error,
                time = "noon",
                level = 9,
                r#type = "A",
                "cannot reach {}",
                "gateway"
            );
        });
        let [line] = &lines[..] else {
            panic!("one event made {} writes", lines.len())
        };
        assert_eq!(
            timeless(line),
            concat!(
                r#"{"time":"NOW","level":"warn","message":"cannot reach gateway","#,
                r#""port":8080,"offset":-1,"share":0.5,"on":true,"address":"192.0.2.1","#,
                r#""list":"[\"a\"]","error":"no \"route\"\n","field_time":"noon","#,
                r#""field_level":9,"type":"A"}"#,
                "\n"
            )
        );
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["port"], json!(8080));
        assert_eq!(parsed["error"], json!("no \"route\"\n"));
    }

    #[test]
    fn json_line_without_message() {
        let lines = logged(LogLevel::Info, Form::Json, || tracing::info!(line = 3_u64));
        assert_eq!(
            timeless(&lines.concat()),
            "{\"time\":\"NOW\",\"level\":\"info\",\"line\":3}\n"
        );
    }

    #[test]
    fn text_line() {
        let lines = logged(LogLevel::Info, Form::Text, || {
            tracing::info!(port = 8080, "the admin endpoint listens");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(
            timeless(&lines.concat()),
            "NOW  INFO the admin endpoint listens port=8080\n"
        );
    }

    #[test]
    fn nothing_below_the_level() {
        let all = || {
            tracing::debug!("d");
            tracing::info!("i");
            tracing::warn!("w");
            tracing::error!("e");
        };
        for (level, count) in [
            (LogLevel::Debug, 4),
            (LogLevel::Info, 3),
            (LogLevel::Warn, 2),
            (LogLevel::Error, 1),
        ] {
            assert_eq!(logged(level, Form::Json, all).len(), count, "{level}");
            assert_eq!(logged(level, Form::Text, all).len(), count, "{level}");
        }
    }
}
