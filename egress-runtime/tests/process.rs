//! What needs a process of its own: signals and a real stderr.

mod actor;

use std::io::{self, Write};

use actor::{Actor, pid, role, say_requests};
use egress_config::{LogFormat, LogLevel};
use egress_runtime::logging;
use serde_json::Value;

#[test]
fn signals_become_requests() {
    if role().is_some() {
        return say_requests();
    }
    let mut actor = Actor::start("signals_become_requests", "requests");
    let pid = pid(&actor.child);
    actor.signal_until_stop(pid);
    assert_eq!(actor.end(), "");
}

#[test]
fn logs_are_json_lines_where_stderr_is_no_terminal() {
    if role().is_some() {
        logging::init(LogLevel::Info, LogFormat::Auto).unwrap();
        tracing::info!(port = 9090, "listens");
        tracing::debug!("not written");
        let again = logging::init(LogLevel::Debug, LogFormat::Text).unwrap_err();
        return tracing::error!("{again}");
    }
    let actor = Actor::start("logs_are_json_lines_where_stderr_is_no_terminal", "log");
    let said = actor.end();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [first, second] = &lines[..] else {
        panic!("{said}")
    };
    assert_eq!(first["level"], "info");
    assert_eq!(first["message"], "listens");
    assert_eq!(first["port"], 9090);
    assert_eq!(second["level"], "error");
    assert_eq!(
        second["message"],
        "logging is already set up in this process"
    );
}

#[test]
fn a_closed_stderr_ends_nothing() {
    if role().is_some() {
        logging::init(LogLevel::Info, LogFormat::Text).unwrap();
        io::stdin().read_line(&mut String::new()).unwrap();
        let gone = io::stderr().write_all(b"nobody reads this").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
        return tracing::error!("nobody reads this either");
    }
    let Actor { mut child, stderr } = Actor::start("a_closed_stderr_ends_nothing", "log");
    drop(stderr);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}
