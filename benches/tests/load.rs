//! The load generator, its origin and the bare relay, as programs: every
//! scenario, and what must be told as an error.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use egress_benches::load::{LoadRole, LoadScenario, Measured};
use egress_lab::harness::{self, TestResult};
use egress_lab::{Identity, trials};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egress-bench-load");

/// Larger than any socket buffer, and than the pieces that are sent at a time.
const LARGE: &str = "3000001";

const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let trials = trials![
        without_a_proxy_all_scenarios_work,
        through_the_relay_all_scenarios_work,
        a_fixed_rate_is_kept,
        idle_connections_are_held_until_the_end,
        over_tls_both_scenarios_work,
        denied_requests_are_what_is_expected,
        a_connection_that_is_not_kept_is_made_again,
        a_wrong_answer_is_told,
        nobody_there_is_told,
        the_relay_passes_on_the_end_of_each_direction,
        the_relay_ends_the_one_when_the_other_breaks,
    ];
    harness::run(&[], trials)
}

/// A program that is ended with the test.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("it starts"))
    }

    /// A relay, once it accepts.
    fn relay(listen: &str, to: &str) -> Self {
        let relay = Self::start(&["relay", "--listen", listen, "--to", to]);
        let address: SocketAddr = listen.parse().expect("an address");
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nobody listens on {address}");
            thread::yield_now();
        }
        relay
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `load` with these words and says what it measured.
fn load(line: &str) -> Result<Measured, String> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    let output = Command::new(PROGRAM)
        .arg("load")
        .args(words)
        .args(["--warm-up", "0.05", "--seconds", "0.1"])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    let [start, stop] = lines[..] else {
        panic!("two lines are expected: {text}");
    };
    assert_eq!(start, r#"{"start":true}"#);
    assert!(stop.contains(r#""stop":true"#), "{stop}");
    Ok(serde_json::from_str(stop).expect("a result"))
}

/// As [`load`], when it must go well.
fn measured(line: &str) -> Measured {
    let measured = load(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(measured.errors, 0, "{line}: {measured:?}");
    assert!(measured.bytes > 0, "{line}: {measured:?}");
    assert!(measured.seconds >= 0.1, "{line}: {measured:?}");
    measured
}

/// What needs no TLS, and no rules.
fn scenarios() -> impl Iterator<Item = LoadScenario> {
    LoadScenario::ALL.into_iter().filter(|scenario| {
        !matches!(
            scenario,
            LoadScenario::Idle
                | LoadScenario::Misses
                | LoadScenario::TlsHandshakes
                | LoadScenario::TlsBulk
        )
    })
}

fn size(scenario: LoadScenario) -> &'static str {
    match scenario {
        LoadScenario::BulkDown
        | LoadScenario::BulkUp
        | LoadScenario::ForwardGet
        | LoadScenario::ForwardPut => LARGE,
        _ => "1024",
    }
}

fn everything(proxy: u16, origin: u16) {
    for role in LoadRole::ALL {
        for scenario in scenarios() {
            let measured = measured(&format!(
                "--proxy 127.0.0.1:{proxy} --origin-port {origin} --role {} --scenario {} \
                 --connections 3 --size {}",
                role.name(),
                scenario.name(),
                size(scenario),
            ));
            assert!(measured.operations > 0, "{}: {measured:?}", scenario.name());
            assert!(measured.p50_us > 0.0 && measured.p50_us <= measured.p99_us);
            assert!(measured.p99_us <= measured.max_us * 1.01);
        }
    }
}

fn without_a_proxy_all_scenarios_work() -> TestResult {
    everything(4001, 4001);
    Ok(())
}

fn through_the_relay_all_scenarios_work() -> TestResult {
    let _relay = Running::relay("127.0.0.1:4011", "127.0.0.1:4012");
    everything(4011, 4012);
    Ok(())
}

fn a_fixed_rate_is_kept() -> TestResult {
    for scenario in ["forward", "connect"] {
        let measured = measured(&format!(
            "--proxy 127.0.0.1:4021 --origin-port 4021 --scenario {scenario} --connections 8 \
             --rate 1000"
        ));
        let expected = 1_000.0 * measured.seconds;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let found = measured.operations as f64;
        // A machine that is busy is late with some, and makes up for others;
        // without a rate there would be ten times as many.
        assert!(found <= expected * 2.0, "{found} of {expected}");
        assert!(found >= expected * 0.3, "{found} of {expected}");
    }
    Ok(())
}

fn idle_connections_are_held_until_the_end() -> TestResult {
    let _relay = Running::relay("127.0.0.1:4031", "127.0.0.1:4032");
    let mut idle = Running::start(&[
        "load",
        "--proxy",
        "127.0.0.1:4031",
        "--origin-port",
        "4032",
        "--scenario",
        "idle",
        "--connections",
        "300",
    ]);
    let mut line = String::new();
    let mut stdout = BufReader::new(idle.0.stdout.take().expect("it is a pipe"));
    stdout.read_line(&mut line)?;
    assert_eq!(line, "{\"ready\":300}\n");
    let open = fs::read_dir(format!("/proc/{}/fd", idle.0.id()))?.count();
    assert!(open >= 600, "{open} open files");
    assert!(idle.0.try_wait()?.is_none());

    drop(idle.0.stdin.take());
    assert!(idle.0.wait()?.success());
    Ok(())
}

fn over_tls_both_scenarios_work() -> TestResult {
    let identity = Identity::create(&["proxy.example"])?;
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("ca.pem");
    fs::write(&authority, identity.authority_pem())?;
    let config = Arc::new(identity.server(&[])?);
    answer_all("127.0.0.1:4041", "200 OK", true, Some(config));
    for (scenario, size) in [("tls-handshakes", "1024"), ("tls-bulk", LARGE)] {
        measured(&format!(
            "--proxy 127.0.0.1:4041 --origin-port 4042 --scenario {scenario} --connections 3 \
             --size {size} --tls-name proxy.example --tls-ca {}",
            authority.display()
        ));
    }
    let other = load(&format!(
        "--proxy 127.0.0.1:4041 --origin-port 4042 --scenario tls-bulk \
         --tls-name other.example --tls-ca {}",
        authority.display()
    ));
    let error = other.expect_err("the name is another");
    assert!(error.contains("certificate"), "{error}");
    Ok(())
}

fn denied_requests_are_what_is_expected() -> TestResult {
    answer_all("127.0.0.1:4051", "403 Forbidden", true, None);
    let folder = tempfile::tempdir()?;
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "a.example\nb.example:81\n::1\n")?;
    let hosts = hosts.display();
    let with = "--proxy 127.0.0.1:4051 --origin-port 4052 --connections 3";
    let measured = measured(&format!("{with} --scenario misses --hosts {hosts}"));
    assert!(measured.operations > 0, "{measured:?}");
    Ok(())
}

fn a_connection_that_is_not_kept_is_made_again() -> TestResult {
    answer_all("127.0.0.1:4101", "200 OK", false, None);
    let with = "--proxy 127.0.0.1:4101 --origin-port 4102 --connections 3 --scenario";
    let measured = measured(&format!("{with} forward"));
    assert!(measured.operations > 0, "{measured:?}");
    // A tunnel that ends is another matter.
    let error = load(&format!("{with} requests")).expect_err("no tunnel is kept");
    assert!(error.contains("the connection ended"), "{error}");
    Ok(())
}

fn a_wrong_answer_is_told() -> TestResult {
    let error = load("--proxy 127.0.0.1:4061 --origin-port 4061 --scenario misses")
        .expect_err("nothing is denied");
    assert!(error.contains("was answered with 200"), "{error}");
    Ok(())
}

fn nobody_there_is_told() -> TestResult {
    let error = load("--proxy 127.0.0.1:4071 --origin-port 4072 --scenario forward")
        .expect_err("nobody listens");
    assert!(error.contains("refused"), "{error}");
    let error = load("--proxy 127.0.0.1:4071 --origin-port 4072 --scenario idle")
        .expect_err("nobody listens");
    assert!(error.contains("refused"), "{error}");
    Ok(())
}

fn the_relay_passes_on_the_end_of_each_direction() -> TestResult {
    let origin = TcpListener::bind("127.0.0.1:4082")?;
    let _relay = Running::relay("127.0.0.1:4081", "127.0.0.1:4082");
    // Of the attempts that found out that it listens.
    origin.accept()?;
    let mut client = TcpStream::connect("127.0.0.1:4081")?;
    let (mut server, _) = origin.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(DEADLINE))?;
    }

    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5_000_003).collect();
    let sent = bytes.clone();
    let upload = thread::spawn(move || -> std::io::Result<TcpStream> {
        client.write_all(&sent)?;
        client.shutdown(Shutdown::Write)?;
        Ok(client)
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received)?;
    assert!(received == bytes, "{} bytes came up", received.len());

    let mut client = upload.join().expect("it does not panic")?;
    let download = thread::spawn(move || server.write_all(&bytes).map(|()| bytes));
    received.clear();
    client.read_to_end(&mut received)?;
    let bytes = download.join().expect("it does not panic")?;
    assert!(received == bytes, "{} bytes came down", received.len());
    Ok(())
}

fn the_relay_ends_the_one_when_the_other_breaks() -> TestResult {
    let origin = TcpListener::bind("127.0.0.1:4092")?;
    let _relay = Running::relay("127.0.0.1:4091", "127.0.0.1:4092");
    origin.accept()?;
    let mut client = TcpStream::connect("127.0.0.1:4091")?;
    client.set_read_timeout(Some(DEADLINE))?;
    let (server, _) = origin.accept()?;
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
    drop(server);
    // An end or a reset, but not silence.
    match client.read(&mut [0; 1]) {
        Ok(bytes) => assert_eq!(bytes, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    Ok(())
}

/// Answers every request with this status and what it asks for, in TLS or
/// without, until the program ends. Connections that it does not keep it closes
/// after an answer, without a word.
fn answer_all(address: &str, status: &'static str, keeps: bool, tls: Option<Arc<ServerConfig>>) {
    let listener = TcpListener::bind(address).expect("the port is free");
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let tls = tls.clone();
            thread::spawn(move || {
                let _ = socket.set_nodelay(true);
                // The client closes the connection when it has all it wants.
                let _ = match tls {
                    None => answer(socket, status, keeps),
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("it is complete");
                        answer(StreamOwned::new(session, socket), status, keeps)
                    }
                };
            });
        }
    });
}

fn answer(stream: impl Read + Write, status: &str, keeps: bool) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line)?;
        }
        let stream = stream.get_mut();
        if first.starts_with("CONNECT ") {
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())?;
        } else {
            let target = first.split(' ').nth(1).unwrap_or_default();
            let size = target.rsplit('/').next().unwrap_or_default();
            let size: usize = size.parse().expect("a size is asked for");
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n");
            let mut response = head.into_bytes();
            response.resize(response.len() + size, b'x');
            stream.write_all(&response)?;
        }
        stream.flush()?;
        if !keeps {
            return Ok(());
        }
    }
}
