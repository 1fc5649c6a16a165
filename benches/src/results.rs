//! `RESULTS.md`, which several runs write their part of.

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The proxies, side by side with peers.
    Proxies,
    /// The router, side by side with peers.
    Router,
}

const HEAD: &str = "# Results\n\nWritten by `make bench BENCH=--write`; [README.md](README.md) \
                    says how. Figures are medians; see each section for of what.\n";

impl Part {
    const ALL: [Self; 2] = [Self::Proxies, Self::Router];

    fn title(self) -> &'static str {
        match self {
            Self::Proxies => "# The proxies",
            Self::Router => "# The router",
        }
    }

    /// `file` with this part as `body`, and the other part as it was.
    #[must_use]
    pub fn put(self, file: &str, body: &str) -> String {
        let mut text = HEAD.to_owned();
        for part in Self::ALL {
            let body = if part == self {
                Some(body.trim())
            } else {
                part.of(file)
            };
            if let Some(body) = body {
                text.push_str(&format!("\n{}\n\n{body}\n", part.title()));
            }
        }
        text
    }

    /// The part of this kind in `file`: up to the next title of the same rank.
    fn of(self, file: &str) -> Option<&str> {
        let (_, rest) = file.split_once(&format!("\n{}\n", self.title()))?;
        let body = rest.split_once("\n# ").map_or(rest, |(body, _)| body);
        Some(body.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_writes_its_own_part_only() {
        let first = Part::Router.put("", "## Goals\n\nrouter\n");
        assert_eq!(
            first,
            format!("{HEAD}\n# The router\n\n## Goals\n\nrouter\n")
        );
        let both = Part::Proxies.put(&first, "proxies");
        assert_eq!(
            both,
            format!("{HEAD}\n# The proxies\n\nproxies\n\n# The router\n\n## Goals\n\nrouter\n")
        );
        assert_eq!(Part::Router.put(&both, "## Goals\n\nrouter"), both);
        assert!(Part::Proxies.put(&both, "other").contains("router"));
    }
}
