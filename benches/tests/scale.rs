//! The benchmark still works: a run too small for figures.

use std::process::ExitCode;

use egress_benches::{Settings, run};
use egress_lab::harness::{self, TestResult};

fn main() -> ExitCode {
    harness::run(
        &["egress-router-init"],
        egress_lab::trials![everybody_is_measured],
    )
}

fn everybody_is_measured() -> TestResult {
    let settings = Settings::quick();
    let report = run(&settings, |_| {})?;
    assert_eq!(report.failures(), [] as [&str; 0]);

    let text = report.to_string();
    let rows = |section: &str, who: &str| {
        let lines = text
            .lines()
            .skip_while(|line| *line != format!("## {section}"))
            .skip(1);
        let rows = lines.take_while(|line| !line.starts_with("## "));
        rows.filter(|line| {
            line.split('|')
                .nth(2)
                .is_some_and(|cell| cell.trim() == who)
        })
        .count()
    };
    let lists = settings.sizes.len();
    for (section, who, expected) in [
        ("Time to apply", "reading the list", lists),
        ("Time to apply", "our driver", lists),
        ("Time to apply", "egress-router-init", lists),
        ("Time to apply", "nft -f", lists),
        ("Time to apply", "iptables-restore", lists),
        ("Time to reload with one mapping changed", "nft -f", lists),
        (
            "Time to reload with one mapping changed",
            "iptables-restore",
            lists,
        ),
        // The first of ten as well.
        ("Time to open a connection", "egress-router-init", lists + 1),
    ] {
        assert_eq!(
            rows(section, who),
            expected,
            "{who} in \"{section}\" of\n{text}"
        );
    }
    Ok(())
}
