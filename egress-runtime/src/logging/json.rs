//! An event as one line of JSON.

use std::fmt;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::timestamp::Timestamp;

/// Formats an event as the object that the [module](super) describes.
#[derive(Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Object::default();
        object.member("time", &Timestamp::now().to_string());
        object.member("level", level(*event.metadata().level()));
        event.record(&mut object);
        writeln!(writer, "{{{}}}", object.members)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// The members of an object, as far as they are written.
#[derive(Debug, Default)]
struct Object {
    members: String,
}

impl Object {
    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        // Strings and numbers always serialise; were one not to, the rest of
        // the line would still be worth having.
        let (Ok(name), Ok(value)) = (serde_json::to_string(name), serde_json::to_string(value))
        else {
            return;
        };
        if !self.members.is_empty() {
            self.members.push(',');
        }
        self.members.push_str(&name);
        self.members.push(':');
        self.members.push_str(&value);
    }

    fn field<T: Serialize + ?Sized>(&mut self, field: &Field, value: &T) {
        match field.name() {
            "time" => self.member("field_time", value),
            "level" => self.member("field_level", value),
            name => self.member(name.strip_prefix("r#").unwrap_or(name), value),
        }
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, &value);
    }
}
