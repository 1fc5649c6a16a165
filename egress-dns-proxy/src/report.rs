//! The configuration, for people and for programs.

use std::fmt::Write as _;

use tracing::info;

use crate::config::Config;
use crate::mapping::{Mapping, Mappings};

/// Mappings logged one by one at the start; of a longer list the log says how
/// to see the rest.
const MAX_LOGGED: usize = 100;

/// The effective mappings, once, as log lines.
pub(crate) fn log_mappings(mappings: &Mappings) {
    for mapping in mappings.iter().take(MAX_LOGGED) {
        info!(
            line = mapping.line(),
            "{} -> {}",
            listener(mapping),
            mapping.destination()
        );
    }
    let unlogged = mappings.len().saturating_sub(MAX_LOGGED);
    if unlogged > 0 {
        info!("and {unlogged} more; `egress-dns-proxy rules` lists all of them");
    }
}

/// The answer of `check`.
pub(crate) fn checked(config: &Config) -> String {
    format!(
        "the configuration is good: {} destinations\n",
        config.mappings().len()
    )
}

/// The answer of `rules` for people.
pub(crate) fn rules_text(mappings: &Mappings) -> String {
    let rows: Vec<[String; 3]> = mappings
        .iter()
        .map(|mapping| {
            let line = mapping.line().to_string();
            [line, listener(mapping), mapping.destination()]
        })
        .collect();
    let width = |column: usize, least: usize| {
        let lengths = rows
            .iter()
            .filter_map(|row| row.get(column).map(String::len));
        lengths.fold(least, usize::max)
    };
    let (first, second) = (width(0, "line".len()), width(1, "port".len()));
    let mut text = format!("{:>first$}  {:<second$}  destination\n", "line", "port");
    for [line, port, destination] in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line:>first$}  {port:<second$}  {destination}");
    }
    text
}

/// The answer of `rules` for programs.
pub(crate) fn rules_json(mappings: &Mappings) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(mappings)?;
    text.push('\n');
    Ok(text)
}

fn listener(mapping: &Mapping) -> String {
    format!("{}/{}", mapping.port(), mapping.protocol())
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_config::{Diagnostics, List};

    #[test]
    fn the_table_of_rules() {
        let list = List::new("X", "# web\n80 web.example.com\n15432/udp 2001:db8::1 53");
        let mut diagnostics = Diagnostics::new();
        let mappings = Mappings::parse(&list, &mut diagnostics);
        assert_eq!(diagnostics, Diagnostics::new());
        assert_eq!(
            rules_text(&mappings),
            "line  port       destination\n\
             \u{20}  2  80/tcp     web.example.com:80\n\
             \u{20}  3  15432/udp  [2001:db8::1]:53\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&rules_json(&mappings).unwrap()).unwrap();
        assert_eq!(json[1]["host"], "2001:db8::1");
        assert_eq!(json[1]["remote_port"], 53);
    }
}
