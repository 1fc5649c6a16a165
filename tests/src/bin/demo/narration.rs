//! What is printed.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use egress_lab::{ClientError, Process, Seen, eventually};

use crate::stage::DEADLINE;

pub(crate) fn title(text: &str) {
    if io::stdout().is_terminal() {
        println!("\n\x1b[1m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

/// What the client did and what the server saw.
pub(crate) fn told(who: &str, to: SocketAddr, answer: &Result<Seen, ClientError>) {
    match answer {
        Ok(seen) => println!(
            "{who} asked {to}: server {} saw {} say {:?}",
            seen.server,
            seen.client.ip(),
            seen.payload
        ),
        Err(error) => println!("{who} asked {to}: {error}"),
    }
}

/// The first `count` lines of a program's log that hold one of `words`, as
/// soon as it has written them.
///
/// # Panics
/// When it writes fewer.
pub(crate) fn log_lines(process: &Process, words: &[&str], count: usize) {
    let lines = eventually(DEADLINE, || {
        let log = process
            .await_stderr("", DEADLINE)
            .map_err(|error| error.to_string())?;
        let lines: Vec<_> = log
            .lines()
            .filter(|line| words.iter().any(|word| line.contains(word)))
            .map(str::to_owned)
            .collect();
        if lines.len() < count {
            return Err(log);
        }
        Ok(lines)
    });
    for line in lines {
        println!("{line}");
    }
}
