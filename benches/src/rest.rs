//! What a proxy takes before its first answer, and while it has nothing to do.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use egress_lab::{Process, Protocol, ProxyLab, program};

use crate::samples::Samples;

/// The proxies.
pub const PROGRAMS: [&str; 2] = ["egress-http-proxy", "egress-dns-proxy"];

/// Where both serve in this measurement.
const PORT: u16 = 8080;
/// Where the server behind the second one answers.
const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SERVER_PORT: u16 = 80;
/// A program that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// What the HTTP proxy refuses by itself: its own pod.
const REQUEST: &[u8] = b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

/// What was measured of one proxy.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) program: &'static str,
    /// From fork to the first byte of the first answer.
    pub(crate) first_answer: Samples,
    /// Resident memory after it.
    pub(crate) resident: Samples,
}

/// Starts each proxy `rounds` times.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Rest>> {
    let lab = ProxyLab::build(&[UPSTREAM.into()])?;
    let server = lab.outside().serve(&[(Protocol::Tcp, SERVER_PORT)])?;
    let mut all = Vec::new();
    for name in PROGRAMS {
        let binary = program(name)?;
        let mut rest = Rest {
            program: name,
            first_answer: Samples::default(),
            resident: Samples::default(),
        };
        for _ in 0..rounds {
            let started = Instant::now();
            let process = start(&lab, &binary, &format!("{PORT} {UPSTREAM} {SERVER_PORT}"))?;
            lab.pod().netns().run(|| await_answer(&process))?;
            rest.first_answer.push_time(started.elapsed());
            #[expect(
                clippy::cast_precision_loss,
                reason = "a resident set is far below 2^52 bytes"
            )]
            rest.resident.push(process.resident()? as f64);
        }
        all.push(rest);
    }
    drop(server);
    Ok(all)
}

fn start(lab: &ProxyLab, binary: &Path, mapping: &str) -> Result<Process> {
    let command = lab
        .pod()
        .command(binary)
        .env("EGRESS_HTTP_PROXY_DESTINATION", "*")
        .env("EGRESS_DNS_PROXY_DESTINATION", mapping)
        .capabilities(&[]);
    Ok(command.spawn()?)
}

/// Asks until there is an answer.
fn await_answer(process: &Process) -> Result<()> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let begun = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect(to) {
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(REQUEST)?;
            let mut byte = [0];
            let read = stream.read(&mut byte).context("reading the first answer")?;
            ensure!(read == 1, "the proxy closed without an answer");
            return Ok(());
        }
        ensure!(process.is_running(), "the proxy ended");
        ensure!(begun.elapsed() < DEADLINE, "the proxy does not listen");
        thread::yield_now();
    }
}
