//! What stands for what only a run knows, in the text of a definition.

use std::collections::BTreeMap;

/// The values of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placeholders(BTreeMap<&'static str, String>);

impl Placeholders {
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.insert(name, value.into());
    }

    /// `text` with every `{name}` that has a value replaced; other braces are
    /// the program's own.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let known = after
                .split_once('}')
                .and_then(|(name, after)| Some((self.0.get(name)?, after)));
            rest = if let Some((value, after)) = known {
                filled.push_str(value);
                after
            } else {
                filled.push('{');
                after
            };
        }
        filled.push_str(rest);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_replaced() {
        let mut placeholders = Placeholders::default();
        placeholders.set("port", "3128");
        placeholders.set("dir", "/d");
        assert_eq!(
            placeholders.fill("events { listen {port}; {dir}/{other} {} {dir}{port} {"),
            "events { listen 3128; /d/{other} {} /d3128 {"
        );
    }
}
