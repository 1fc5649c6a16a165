//! What differs from run to run in what programs print.

use std::sync::LazyLock;

use egress_lab::harness::TestResult;
use regex::Regex;

/// Pattern, and what stands in its place.
static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
        (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
        // Log fields: durations, lengths of requests, and what the machine has.
        (
            r#"("?(?:duration_ms|dns_ms|connect_ms|milliseconds|bytes_up|bytes_down|threads|workers|connections)"?[=:])[\d.]+"#,
            "${1}N",
        ),
        // The port that a client's kernel chose.
        (r#"("?client"?[=:]"?[\d.]+):\d+"#, "${1}:PORT"),
        // Of status: counters, and what the kernel tracks.
        (r"(?m)^connections  \d+ of \d+$", "connections N of N"),
        (
            r"(?m)^(\d+/(?:tcp|udp)|the rest|refused|dropped)( .*?) +\d+ +\d+$",
            "${1}${2} N N",
        ),
        // Samples of metrics.
        (r"(?m)^((?:egress|process)_[a-z_]+(?:\{[^}]*\})?) \S+$", "${1} N"),
    ]
    .map(|(pattern, mask)| (Regex::new(pattern).unwrap(), mask))
    .into()
});

pub(crate) fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, mask) in MASKS.iter() {
        text = pattern.replace_all(&text, *mask).into_owned();
    }
    text
}

/// Whether `found` is what a page shows: masked, and with any lines where the
/// page has a line of three dots.
pub(crate) fn is_shown(shown: &str, found: &str) -> bool {
    fn fits(shown: &[&str], found: &[&str]) -> bool {
        match (shown.split_first(), found.split_first()) {
            (None, None) => true,
            (Some((&"...", rest)), _) => (0..=found.len()).any(|skip| fits(rest, &found[skip..])),
            (Some((one, shown)), Some((other, found))) => one == other && fits(shown, found),
            _ => false,
        }
    }
    let (shown, found) = (masked(shown), masked(found));
    fits(
        &shown.lines().map(str::trim_end).collect::<Vec<_>>(),
        &found.lines().map(str::trim_end).collect::<Vec<_>>(),
    )
}

pub(crate) fn only_what_changes_is_masked() -> TestResult {
    let line = "80/tcp       203.0.113.25:80                30           1788\n";
    assert!(is_shown(line, &line.replace("30 ", "31 ")));
    assert!(!is_shown(line, &line.replace("80/tcp", "81/tcp")));
    assert!(!is_shown(line, &line.replace(".25", ".26")));
    let log = r#"{"time":"2026-11-20T18:41:11.813Z","client":"10.244.2.12:39078","status":200,"duration_ms":1.2}"#;
    assert!(is_shown(
        log,
        &log.replace("39078", "1").replace("1.2", "40")
    ));
    assert!(!is_shown(log, &log.replace("200", "403")));
    let sample = "egress_http_proxy_decisions_total{verdict=\"denied\",reason=\"rule\"} 1\n";
    assert!(is_shown(sample, &sample.replace(" 1", " 2")));
    assert!(!is_shown(sample, &sample.replace("denied", "allowed")));
    assert!(is_shown("a\n...\nb\n", "a\nx\ny\nb\n"));
    assert!(is_shown("a\n...\n", "a\n"));
    assert!(!is_shown("a\n...\nb\n", "a\nx\n"));
    Ok(())
}
