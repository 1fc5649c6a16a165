//! What the fuzz target of destination lines checks. The tests of the DNS
//! proxy replay its corpus on stable.

use std::collections::BTreeSet;

use egress_config::{Diagnostics, List};
use egress_dns_proxy::mapping::{Mapping, Mappings};

/// Destination lines: what is accepted is unique and reads back as itself;
/// what is not accepted is reported.
pub fn destination_lines(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (mappings, diagnostics) = parse(text);
    let mut ports = BTreeSet::new();
    for mapping in &mappings {
        assert!(ports.insert((mapping.protocol(), mapping.port())));
        let written = mapping.to_string();
        let (again, bad) = parse(&written);
        assert_eq!(bad, Diagnostics::new());
        assert!(again.iter().map(Mapping::to_string).eq([written]));
        assert!(
            mapping
                .destination()
                .ends_with(&mapping.remote_port().to_string())
        );
    }
    let entries = List::new("X", text).lines().count();
    assert_eq!(mappings.len() + diagnostics.errors().len(), entries);
    let report = diagnostics.to_string();
    let sentence = usize::from(diagnostics.legacy().is_some());
    assert_eq!(
        report.lines().count(),
        diagnostics.errors().len() + sentence
    );
    assert!(!report.contains(|c: char| c.is_control() && c != '\t' && c != '\n'));
}

fn parse(text: &str) -> (Mappings, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let list = List::new("EGRESS_DNS_PROXY_DESTINATION", text);
    let mappings = Mappings::parse(&list, &mut diagnostics);
    (mappings, diagnostics)
}
