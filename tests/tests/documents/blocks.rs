//! Runs or validates every block of a page.

use egress_lab::harness::TestResult;
use egress_lab::{Command, NetNs, program};

use crate::commands::{Desk, words};
use crate::mask::is_shown;
use crate::page::{Block, Kind, blocks};
use crate::scene::Setting;
use crate::yaml;

/// Checks all blocks of a page, of which there are `count`.
pub(crate) fn check(name: &str, count: usize, setting: Setting) -> TestResult {
    let blocks = blocks(name);
    let mut desk = Desk::new(setting);
    let mut fragments = Vec::new();
    let mut trouble = Vec::new();
    for block in &blocks {
        let place = format!("{name}:{}", block.line);
        let result = match &block.kind {
            Kind::Commands => check_commands(&mut desk, block),
            Kind::Session => check_session(&mut desk, block),
            Kind::Yaml(part) => yaml::check(&mut desk, part, &block.text).map(|complete| {
                fragments.extend(complete);
            }),
            Kind::List(tag) => check_list(&mut desk, tag, &block.text),
        };
        if let Err(failed) = result {
            let text = failed.message().unwrap_or("it failed").to_owned();
            trouble.push(format!("{place}: {text}"));
        }
    }
    yaml::validate(&fragments)?;
    if trouble.is_empty() {
        assert_eq!(blocks.len(), count, "{name}: blocks; correct PAGES");
        return Ok(());
    }
    Err(trouble.join("\n\n").into())
}

/// Commands of a script: each must succeed.
fn check_commands(desk: &mut Desk, block: &Block) -> TestResult {
    let lines = block.text.replace("\\\n", " ");
    let mut seen = 0;
    for line in lines.lines() {
        let words = words(line)?;
        if words.is_empty() {
            continue;
        }
        let answer = desk.run(&words)?;
        if answer.code != 0 {
            return Err(format!("{line}: exit code {}\n{}", answer.code, answer.text).into());
        }
        seen += 1;
    }
    assert!(seen > 0, "a block without a command");
    Ok(())
}

/// Commands with their answers.
fn check_session(desk: &mut Desk, block: &Block) -> TestResult {
    let text = block.text.replace("\\\n", " ");
    let mut rest = text
        .strip_prefix("$ ")
        .ok_or("it starts with `$ ` and a command")?;
    loop {
        let (one, next) = match rest.split_once("\n$ ") {
            Some((one, next)) => (one, Some(next)),
            None => (rest, None),
        };
        let (line, shown) = one.split_once('\n').unwrap_or((one, ""));
        let words = words(line)?;
        let answer = desk.run_until(&words, |answer| is_shown(shown, &answer.text))?;
        if !is_shown(shown, &answer.text) {
            return Err(format!("{line}\nprints\n{}\nand not\n{shown}", answer.text).into());
        }
        match next {
            Some(next) => rest = next,
            None => return Ok(()),
        }
    }
}

/// The program that a list is of, and the variable that names its file.
pub(crate) fn program_of_list(tag: &str) -> (&'static str, &'static str) {
    match tag {
        "redirect-lines" => ("egress-router-init", "EGRESS_DESTINATION"),
        "http-proxy-rules" => ("egress-http-proxy", "EGRESS_HTTP_PROXY_DESTINATION"),
        _ => ("egress-dns-proxy", "EGRESS_DNS_PROXY_DESTINATION"),
    }
}

/// Environment in which a program lacks nothing but its list.
pub(crate) fn checked_program(name: &str) -> Result<Command, egress_lab::LabError> {
    let netns = NetNs::create("check")?;
    let command = Command::new(&netns, program(name)?)
        .arg("check")
        .env("EGRESS_SOURCE", "192.168.12.99/24 2001:db8:12::99/64")
        .env("EGRESS_LOG_FORMAT", "text");
    Ok(match name {
        "egress-router-init" => command.env("EGRESS_GATEWAY", "192.168.12.1 2001:db8:12::1"),
        _ => command,
    })
}

/// A list: its program has nothing to say against it.
fn check_list(desk: &mut Desk, tag: &str, text: &str) -> TestResult {
    let (name, variable) = program_of_list(tag);
    let output = checked_program(name)?.env(variable, text).run()?;
    if output.code != 0 || !output.stderr.is_empty() {
        return Err(output.stderr.into());
    }
    desk.remember_list(text);
    Ok(())
}
