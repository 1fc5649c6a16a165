//! The table of variables as text for people.

use std::fmt::Write as _;

use crate::variables::{DefaultValue, Program, TABLE, VariableKind, VariableSpec};

/// Columns of a terminal that help is wrapped to.
const WIDTH: usize = 80;
const INDENT: &str = "      ";

/// The variables of a program with their meanings and defaults, for `--help`.
#[must_use]
pub fn help_text(program: Program) -> String {
    let mut help = String::from("Environment:\n");
    for spec in specs(program) {
        let twin = match spec.kind() {
            VariableKind::Value => String::new(),
            VariableKind::List => format!(" or {}_FILE (path of a file)", spec.name()),
        };
        help.push_str("  ");
        help.push_str(spec.name());
        help.push_str(&twin);
        help.push('\n');
        let meaning = format!("{} [{}]", spec.meaning(), default_text(spec.default()));
        wrap(&mut help, &meaning.replace('`', ""));
    }
    help
}

/// Every variable, and which programs read it, as a Markdown table for the
/// README.
#[must_use]
pub fn markdown_table() -> String {
    let mut table = String::from("| variable | read by | meaning | default |\n|---|---|---|---|\n");
    for spec in TABLE {
        let twin = match spec.kind() {
            VariableKind::Value => "",
            VariableKind::List => " (`_FILE`)",
        };
        let default = match spec.default() {
            DefaultValue::Required => "required".to_owned(),
            DefaultValue::Value(text) => format!("`{text}`"),
            DefaultValue::Described(text) => text.to_owned(),
        };
        let readers = readers(spec);
        let row = format!(
            "`{}`{twin} | {readers} | {} | {default}",
            spec.name(),
            spec.meaning()
        );
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {row} |");
    }
    table
}

/// Who reads a variable, in a word or two.
fn readers(spec: &VariableSpec) -> String {
    let names: Vec<_> = Program::ALL
        .into_iter()
        .filter(|&program| spec.is_read_by(program))
        .map(|program| match program {
            Program::RouterInit => "router",
            Program::HttpProxy => "HTTP proxy",
            Program::DnsProxy => "DNS proxy",
        })
        .collect();
    if names.len() == Program::ALL.len() {
        "all".to_owned()
    } else {
        names.join(", ")
    }
}

fn specs(program: Program) -> impl Iterator<Item = &'static VariableSpec> {
    TABLE
        .iter()
        .copied()
        .filter(move |spec| spec.is_read_by(program))
}

fn default_text(default: DefaultValue) -> String {
    match default {
        DefaultValue::Required => "required".to_owned(),
        DefaultValue::Value(text) | DefaultValue::Described(text) => format!("default: {text}"),
    }
}

fn wrap(help: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column == 0 || column + 1 + length > WIDTH {
            if column != 0 {
                help.push('\n');
            }
            help.push_str(INDENT);
            column = INDENT.len();
        } else {
            help.push(' ');
            column += 1;
        }
        help.push_str(word);
        column += length;
    }
    help.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_variable_of_the_program_and_no_other() {
        for program in Program::ALL {
            let help = help_text(program);
            for spec in TABLE {
                let heading = format!("\n  {}", spec.name());
                let listed = help.match_indices(&heading).any(|(at, _)| {
                    matches!(help.as_bytes().get(at + heading.len()), Some(b'\n' | b' '))
                });
                assert_eq!(listed, spec.is_read_by(program), "{}", spec.name());
            }
        }
    }

    #[test]
    fn the_table_has_a_row_for_every_variable() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), TABLE.len() + 2);
        for row in [
            "| `EGRESS_LOG` | all | ",
            "| `EGRESS_GATEWAY` | router | ",
            "| `EGRESS_HTTP_PROXY_DESTINATION` (`_FILE`) | HTTP proxy | ",
            "| `EGRESS_THREADS` | HTTP proxy, DNS proxy | ",
        ] {
            assert!(table.contains(&format!("\n{row}")), "{row} in\n{table}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        for line in help_text(Program::RouterInit).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn every_row_has_four_cells() {
        for row in markdown_table().lines() {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
    }
}
