//! What a user wrote, safe to show on one line.

use std::fmt;

/// Characters of a text that are shown; a binary file given by mistake would
/// otherwise fill the log.
const SHOWN: usize = 256;

/// Shows a text on one line: control characters other than a tab are escaped
/// (`\r`, `\u{1b}`), and a very long text is cut with `…`.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for (index, character) in self.0.chars().enumerate() {
            if index == SHOWN {
                return f.write_char('…');
            }
            if character.is_control() && character != '\t' {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(
            OneLine("a\tb\r\n\u{1b}[2Jé").to_string(),
            "a\tb\\r\\n\\u{1b}[2Jé"
        );
    }

    #[test]
    fn long_text_is_cut() {
        let shown = OneLine(&"x".repeat(10_000)).to_string();
        assert_eq!(shown.chars().count(), SHOWN + 1);
        assert!(shown.ends_with('…'));
    }
}
