//! A table that reads well as text and as Markdown.

use std::fmt;

/// Rows of cells below a head.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// How many of the first columns hold words; the others hold numbers.
    words: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose first columns, `words` of them, are left-aligned.
    pub(crate) fn new(words: usize, head: &[&str]) -> Self {
        Self {
            words,
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row; cells that it lacks are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        };
        (0..columns).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                if column < self.words {
                    write!(f, "| {cell:<width$} ")?;
                } else {
                    write!(f, "| {cell:>width$} ")?;
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if column < self.words { "-" } else { ":" };
                    write!(f, "|{:-<width$}-{end}", "")?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// A time with three digits and its unit.
pub(crate) fn time(seconds: f64) -> String {
    for (unit, name) in [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")] {
        if seconds >= 0.9995 * unit {
            return format!("{} {name}", digits(seconds / unit));
        }
    }
    format!("{:.0} ns", seconds * 1e9)
}

/// A size with three digits and its unit.
pub(crate) fn size(bytes: f64) -> String {
    format!("{} MB", digits(bytes / 1e6))
}

/// A number with three digits.
pub(crate) fn digits(number: f64) -> String {
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (seconds, text) in [
            (2.3456, "2.35 s"),
            (0.99951, "1.00 s"),
            (0.0923, "92.3 ms"),
            (0.000_021_34, "21.3 µs"),
            (0.000_345, "345 µs"),
            (0.000_000_4, "400 ns"),
            (123.4, "123 s"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(size(38_123_456.0), "38.1 MB");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, &["who", "time"]);
        table.row(["we".to_owned(), "21.3 µs".to_owned()]);
        table.row(["another".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| who     |    time |\n\
             |---------|--------:|\n\
             | we      | 21.3 µs |\n\
             | another |         |\n"
        );
    }
}
