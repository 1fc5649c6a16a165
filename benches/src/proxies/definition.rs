//! A peer as a file describes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::placeholders::Placeholders;
use super::rule_list::RuleList;
use super::scenario::Role;

/// The peers of the distribution's packages.
const PACKAGED: [&str; 8] = [
    include_str!("../../peers/squid.yaml"),
    include_str!("../../peers/trafficserver.yaml"),
    include_str!("../../peers/tinyproxy.yaml"),
    include_str!("../../peers/haproxy.yaml"),
    include_str!("../../peers/nginx.yaml"),
    include_str!("../../peers/trafficserver-tls.yaml"),
    include_str!("../../peers/haproxy-tls.yaml"),
    include_str!("../../peers/nginx-tls.yaml"),
];

/// How a program is made a subject. `benches/README.md` explains the format.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) program: PathBuf,
    /// What to install where the program is missing.
    pub(crate) package: Option<String>,
    /// Files that must be there besides the program.
    #[serde(default)]
    pub(crate) needs: Vec<PathBuf>,
    /// Arguments with which the program tells its version.
    #[serde(default)]
    pub(crate) version: Vec<String>,
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Files to write below `{dir}` before each start.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// An allow rule for an address, for `{rule_lines}`.
    #[serde(default)]
    pub(crate) rule_for_address: String,
    /// The same for a name. Without it the peer has no part in the scenarios
    /// with many rules.
    pub(crate) rule_for_name: Option<String>,
    /// Whether a client's connection is kept for its next request. Where not,
    /// each request has a new one in the scenarios in which others keep theirs.
    #[serde(default = "yes")]
    pub(crate) keeps_connections: bool,
    /// Most connections that the configuration allows.
    pub(crate) most_connections: Option<usize>,
}

fn yes() -> bool {
    true
}

impl Definition {
    /// Reads a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_saphyr::from_str(text).context("reading a peer's definition")
    }

    /// The peers of the distribution's packages.
    pub(crate) fn packaged() -> Result<Vec<Self>> {
        PACKAGED.iter().map(|text| Self::parse(text)).collect()
    }

    /// All rules in the peer's own language.
    pub(crate) fn rule_lines(&self, rules: &RuleList) -> String {
        let for_name = self.rule_for_name.as_deref().unwrap_or_default();
        let mut lines = String::new();
        for (number, rule) in rules.iter().enumerate() {
            let template = if rule.is_name() {
                for_name
            } else {
                &self.rule_for_address
            };
            let mut placeholders = Placeholders::default();
            placeholders.set("n", (number + 1).to_string());
            placeholders.set("host", rule.host());
            lines.push_str(&placeholders.fill(template));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_ones_are_read_and_have_unique_names() {
        let all = Definition::packaged().unwrap();
        let mut names: Vec<_> = all.iter().map(|one| (one.role, &one.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for one in &all {
            assert!(one.package.is_some(), "{}", one.name);
            assert!(!one.version.is_empty(), "{}", one.name);
        }
    }

    #[test]
    fn rules_are_written_as_the_replaced_image_writes_them() {
        let all = Definition::packaged().unwrap();
        let squid = all.iter().find(|one| one.name == "squid").unwrap();
        assert_eq!(
            squid.rule_lines(&RuleList::origin_only()),
            "acl dest1 dst 127.0.0.1\nhttp_access allow dest1\n"
        );
        let names = RuleList::of_names(2);
        assert_eq!(
            squid.rule_lines(&names),
            "acl dest1 dstdomain n000000.rules.example\nhttp_access allow dest1\n\
             acl dest2 dstdomain n000001.rules.example\nhttp_access allow dest2\n"
        );
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let error = Definition::parse("name: x\nrole: http\nprogram: x\nargument: []\n");
        assert!(format!("{:#}", error.unwrap_err()).contains("argument"));
    }
}
