//! Every conformance case of the HTTP proxy, by the real program in a pod of
//! its own: what the client gets, and what reaches which origin.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, also over a malformed case"
)]

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use egress_lab::{
    Answer, Arrival, Command, Family, NetNs, Origin, Output, ProxyLab, Reply, Request, Resolver,
    harness::{
        self, TestResult,
        libtest_mimic::{Failed, Trial},
    },
    program,
};
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

const CASES: &str = include_str!("../conformance/cases.json");

const PROGRAM: &str = "egress-http-proxy";

/// Exit code for a bad configuration. The cases only tell 0 from the rest.
const BAD_CONFIGURATION: i32 = 64;

/// How long a client waits, unless the case says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// Cases that are answered otherwise on purpose.
const DEVIATIONS: [(&str, &str); 1] = [(
    "H052",
    "`1.2.3.4:80` is an address with a port, an extension of the grammar: nothing else than \
     port 80 of it can be meant",
)];

/// What a case may expect. A key that is not known is not judged, so there is
/// none.
const KEYS: [&str; 18] = [
    "body_excludes",
    "complete_request_at_origin",
    "dial",
    "exit",
    "forwarded",
    "forwarded_body",
    "forwarded_excludes",
    "forwarded_host",
    "max_seconds",
    "no_headers",
    "or_option",
    "reason",
    "rules",
    "status",
    "stderr_last_line",
    "then",
    "tunnel_first_bytes",
    "verdict",
];

fn main() -> ExitCode {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let cases = cases
        .into_iter()
        .filter(|case| case["component"] == PROGRAM);
    let (requests, configurations): (Vec<_>, Vec<_>) = cases
        .map(Case)
        .partition(|case| case.0["kind"] == "request");
    let counts = (requests.len(), configurations.len());
    let mut tests: Vec<Trial> = requests
        .into_iter()
        .chain(configurations)
        .map(|case| Trial::test(case.id().to_owned(), move || case.judge()))
        .collect();
    tests.push(Trial::test("no_case_is_lost", move || {
        assert_eq!(counts, (114, 31), "a case was lost or added");
        Ok(())
    }));
    tests.push(Trial::test("Q030_without_literals", without_literals));
    // Processes that start and end, and wait for each other.
    harness::run_waiting(&[PROGRAM], tests)
}

/// A case of `cases.json`.
struct Case(Value);

impl Case {
    fn id(&self) -> &str {
        self.0["id"].as_str().unwrap()
    }

    fn expect(&self, key: &str) -> Option<&Value> {
        assert!(KEYS.contains(&key), "{key}");
        self.0["expect"].get(key)
    }

    fn expect_text(&self, key: &str) -> Option<&str> {
        self.expect(key).map(|value| value.as_str().unwrap())
    }

    fn configuration(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.0["config"].as_object().unwrap().iter();
        variables.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
    }

    fn judge(&self) -> TestResult {
        for key in self.0["expect"].as_object().unwrap().keys() {
            assert!(KEYS.contains(&key.as_str()), "{key} is not judged");
        }
        let answer = match self.0["kind"].as_str().unwrap() {
            "config" => self.judge_configuration(),
            "request" => self.judge_request(&[]),
            other => Err(format!("kind {other:?} is not known").into()),
        };
        let deviates = DEVIATIONS.iter().any(|(id, _)| *id == self.id());
        match (answer, deviates) {
            (Ok(()), false) => Ok(()),
            (Ok(()), true) => Err("answers as expected and is no deviation any more".into()),
            (Err(_), true) => self.deviates(),
            (Err(reason), false) => Err(format!(
                "{} ({}): {}",
                self.id(),
                self.0["why"],
                reason.message().unwrap_or_default()
            )
            .into()),
        }
    }

    /// What a case is answered with that is answered otherwise on purpose.
    fn deviates(&self) -> TestResult {
        assert_eq!(self.id(), "H052");
        let _ = self.run(&["check"])?.expect(0);
        self.has_rules(&["allow 1.2.3.4:80", "deny *"])
    }

    // --- configurations ---

    fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        let nowhere = NetNs::create(self.id())?;
        let command = Command::new(&nowhere, program(PROGRAM)?).envs(self.configuration());
        let command = arguments
            .iter()
            .fold(command, |command, argument| command.arg(*argument));
        Ok(command.capabilities(&[]).run()?)
    }

    fn judge_configuration(&self) -> TestResult {
        if self.expect("exit").unwrap() == 0 {
            let _ = self.run(&["check"])?.expect(0);
            let Some(rules) = self.expect("rules") else {
                return Ok(());
            };
            let rules: Vec<_> = rules.as_array().unwrap().iter().collect();
            let rules: Vec<_> = rules.iter().map(|rule| rule.as_str().unwrap()).collect();
            return self.has_rules(&rules);
        }
        // Serving and checking refuse it alike. Also where the last line may
        // be better than the one given, it is the one that is known.
        let sentence = self.expect_text("stderr_last_line").unwrap();
        for arguments in [&["check"][..], &[]] {
            let output = self.run(arguments)?;
            if (output.code, output.last_error_line()) != (BAD_CONFIGURATION, sentence) {
                return Err(format!("not {sentence:?}: {output:#?}").into());
            }
        }
        Ok(())
    }

    /// The rule table has these rules in this order, and no other.
    fn has_rules(&self, expected: &[&str]) -> TestResult {
        let output = self.run(&["rules"])?.expect(0);
        let rules: Vec<_> = output.stdout.lines().filter_map(rule).collect();
        if rules != expected {
            return Err(format!("rules {rules:?}, not {expected:?}:\n{}", output.stdout).into());
        }
        Ok(())
    }

    // --- requests ---

    fn judge_request(&self, more: &[(&str, &str)]) -> TestResult {
        let lab = ProxyLab::build(
            &["198.51.100.1", "203.0.113.2", "100.64.0.1"]
                .map(|address| address.parse::<IpAddr>().unwrap().into()),
        )?;
        for (name, answer) in self.0["resolver"].as_object().unwrap() {
            script(lab.resolver(), name, answer)?;
        }
        let outside = [
            "198.51.100.1:80",
            "198.51.100.1:443",
            "198.51.100.1:22",
            "203.0.113.2:80",
            "203.0.113.2:443",
            "100.64.0.1:443",
        ]
        .map(|endpoint| endpoint.parse().unwrap());
        let outside = Origin::start(lab.outside().netns(), &outside)?;
        // What must not be reached: it listens on loopback only.
        let inside = [SocketAddr::from((Ipv4Addr::LOCALHOST, 80))];
        let inside = Origin::start(lab.pod().netns(), &inside)?;
        let command = lab.pod().command(program(PROGRAM)?);
        let command = command
            .envs(self.configuration())
            .envs(more.iter().copied());
        let proxy = lab.start(command)?;

        let exchange = self.exchange(&lab)?;
        // Nothing is under way any more when the proxy has ended.
        let output = proxy.stop()?.expect(0);
        let arrivals = [inside.settle()?, outside.settle()?].concat();
        self.client_saw(&exchange, more)
            .and_then(|()| self.origins_saw(&exchange, &arrivals))
            .and_then(|()| never_asked_for_names_of_addresses(lab.resolver()))
            .map_err(|reason| {
                format!(
                    "{reason}\nexchange {exchange:#?}\narrivals {arrivals:#?}\nstderr\n{}",
                    output.stderr
                )
                .into()
            })
    }

    fn exchange(&self, lab: &ProxyLab) -> Result<Exchange, Failed> {
        // A latin-1 string, byte for byte.
        let raw: Vec<u8> = self.0["raw_request"]
            .as_str()
            .unwrap()
            .chars()
            .map(|char| u8::try_from(u32::from(char)).unwrap())
            .collect();
        let method = self.0["raw_request"].as_str().unwrap();
        let method = method.split(' ').next().unwrap();
        let proxy = lab.pod().socket(Family::Ipv4, 8080);
        let mut stream = lab.client().netns().run(|| TcpStream::connect(proxy))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        // A head that is too large may be refused before all of it is sent.
        let _ = stream.write_all(&raw);
        let mut reader = BufReader::new(stream.try_clone()?);
        let reply = match Reply::read(&mut reader, method) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            reply => reply?,
        };
        let elapsed = start.elapsed();
        let is_tunnel =
            method == "CONNECT" && reply.as_ref().is_some_and(|reply| reply.status == 200);
        let ended = if let Some(then) = self.expect_text("then") {
            let ("ClientHello SNI=evil.test -> close without forwarding", true) = (then, is_tunnel)
            else {
                return Err(format!("then {then:?} is not known, or not after {reply:?}").into());
            };
            let _ = stream.write_all(&client_hello("evil.test")?);
            Some(await_end(&mut reader)?)
        } else {
            None
        };
        if ended.is_none() {
            // Both sides of a tunnel learn that it is over.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let rest = match ended {
            Some(rest) => rest,
            None => await_end(&mut reader)?,
        };
        Ok(Exchange {
            reply,
            elapsed,
            is_tunnel,
            rest,
        })
    }

    fn client_saw(&self, exchange: &Exchange, more: &[(&str, &str)]) -> Result<(), String> {
        let Exchange {
            reply,
            elapsed,
            is_tunnel,
            rest,
        } = exchange;
        let expected = if more.is_empty() {
            self.expect("status").unwrap().as_array().unwrap().clone()
        } else {
            // The case's other half: `NAME=deny -> 403`.
            let (_, status) = self
                .expect_text("or_option")
                .unwrap()
                .split_once(" -> ")
                .unwrap();
            vec![status.parse::<u16>().unwrap().into()]
        };
        let status = match reply {
            Some(reply) => Value::from(reply.status),
            None => Value::from("close"),
        };
        if !expected.contains(&status) {
            return Err(format!("status {status}, not one of {expected:?}"));
        }
        if let Some(most) = self.expect("max_seconds")
            && elapsed.as_secs_f64() > most.as_f64().unwrap()
        {
            return Err(format!("answered after {elapsed:?}"));
        }
        let Some(reply) = reply else {
            return Ok(());
        };
        let verdict = self.expect_text("verdict").unwrap();
        // One request has one answer: bytes after it were not taken for another.
        if !is_tunnel && !rest.is_empty() {
            return Err(format!("more than one answer: {rest:?}"));
        }
        // RFC 9209: whoever is refused learns by whom and why.
        let proxy_status = reply.fields("proxy-status").collect::<Vec<_>>().join(", ");
        let own_answer = match (verdict, reply.status) {
            ("deny", _) => Some("error="),
            ("error", 502..=504) => Some("error="),
            _ => None,
        };
        for part in own_answer
            .into_iter()
            .chain(self.expect_text("reason"))
            .chain((self.id() == "Q218").then_some("error=connection_refused"))
        {
            if !proxy_status.contains(part) {
                return Err(format!("Proxy-Status {proxy_status:?} without {part:?}"));
            }
        }
        if let Some(secret) = self.expect_text("body_excludes")
            && (reply.text().contains(secret) || reply.head.contains(secret))
        {
            return Err(format!("{secret:?} comes back"));
        }
        for name in self
            .expect("no_headers")
            .into_iter()
            .flat_map(|list| list.as_array().unwrap())
        {
            if reply.fields(name.as_str().unwrap()).next().is_some() {
                return Err(format!("has the field {name}"));
            }
        }
        Ok(())
    }

    fn origins_saw(&self, exchange: &Exchange, arrivals: &[Arrival]) -> Result<(), String> {
        let dialled: BTreeSet<String> = arrivals
            .iter()
            .map(|arrival| arrival.server.to_string())
            .collect();
        let allowed: BTreeSet<String> = self
            .expect("dial")
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| endpoint.as_str().unwrap().to_owned())
            .collect();
        let succeeded = exchange
            .reply
            .as_ref()
            .is_some_and(|reply| reply.status < 300);
        let judged = !allowed.contains("maybe");
        if judged && (!dialled.is_subset(&allowed) || (succeeded && dialled != allowed)) {
            return Err(format!("dialled {dialled:?}, not {allowed:?}"));
        }
        let requests: Vec<&Request> = arrivals
            .iter()
            .flat_map(|arrival| &arrival.requests)
            .collect();
        let received: Vec<String> = arrivals
            .iter()
            .map(|arrival| String::from_utf8_lossy(&arrival.received).into_owned())
            .collect();
        if self.expect("complete_request_at_origin") == Some(&Value::Bool(false))
            && !requests.is_empty()
        {
            return Err("a broken request was forwarded as a complete one".to_owned());
        }
        if let Some(excluded) = self.expect_text("forwarded_excludes")
            && received.iter().any(|bytes| bytes.contains(excluded))
        {
            return Err(format!("forwarded {excluded:?}"));
        }
        if self.expect_text("then").is_some() && received.iter().any(|bytes| !bytes.is_empty()) {
            return Err("forwarded what the server name forbids".to_owned());
        }
        if !succeeded {
            return Ok(());
        }
        if let Some(bytes) = self.expect_text("tunnel_first_bytes")
            && !received.iter().all(|received| received.starts_with(bytes))
        {
            return Err(format!("the tunnel does not begin with {bytes:?}"));
        }
        if exchange.is_tunnel {
            return Ok(());
        }
        let [request] = requests[..] else {
            return Err(format!("{} requests at the origins", requests.len()));
        };
        if let Some(host) = self.expect_text("forwarded_host")
            && !request.fields("host").eq([host])
        {
            return Err(format!("Host is not {host:?}"));
        }
        if let Some(body) = self.expect_text("forwarded_body")
            && request.body != body.as_bytes()
        {
            return Err(format!("content is not {body:?}"));
        }
        match self.expect_text("forwarded") {
            None => Ok(()),
            Some("exactly one Content-Length: 3" | "framing intact") => {
                let intact = request.fields("content-length").eq(["3"])
                    && request.fields("transfer-encoding").next().is_none()
                    && request.body == b"abc";
                intact
                    .then_some(())
                    .ok_or_else(|| "framing is not intact".to_owned())
            }
            Some("CRLF only") => {
                let bare = received
                    .iter()
                    .any(|bytes| bytes.replace("\r\n", "").contains('\n'));
                (!bare)
                    .then_some(())
                    .ok_or_else(|| "forwarded a bare LF".to_owned())
            }
            Some(other) => Err(format!("forwarded {other:?} is not known")),
        }
    }
}

/// What happened between client and proxy.
#[derive(Debug)]
struct Exchange {
    /// `None`: the connection was closed without an answer.
    reply: Option<Reply>,
    elapsed: Duration,
    is_tunnel: bool,
    /// What came after the reply, to the end of the connection.
    rest: Vec<u8>,
}

/// All that comes until the other side ends the connection.
fn await_end(stream: &mut impl Read) -> Result<Vec<u8>, Failed> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(rest),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(rest),
        Err(error) => Err(format!("the connection does not end: {error}").into()),
    }
}

/// The first bytes of a TLS connection to a server of that name.
fn client_hello(name: &str) -> Result<Vec<u8>, Failed> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned())?;
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name)?.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// Scripts a name as a case writes it. The time to live is 0.
fn script(resolver: &Resolver, name: &str, answer: &Value) -> TestResult {
    let addresses = |list: &[Value]| -> Result<Vec<IpAddr>, Failed> {
        list.iter()
            .map(|address| Ok(address.as_str().ok_or("no text")?.parse()?))
            .collect()
    };
    let answer = match answer {
        Value::String(text) if text == "SERVFAIL" => Answer::Failure,
        Value::Array(list) if list.iter().any(Value::is_array) => Answer::Rotating(
            list.iter()
                .map(|list| addresses(list.as_array().ok_or("mixed")?))
                .collect::<Result<_, _>>()?,
        ),
        Value::Array(list) => match list
            .first()
            .and_then(|first| first.as_str()?.strip_prefix("PTR:"))
        {
            Some(pointer) => Answer::Pointer(pointer.to_owned()),
            None => Answer::Addresses(addresses(list)?),
        },
        other => return Err(format!("answer {other} is not known").into()),
    };
    resolver.answer(name, 0, answer);
    Ok(())
}

/// No reverse DNS anywhere.
fn never_asked_for_names_of_addresses(resolver: &Resolver) -> Result<(), String> {
    match resolver
        .queries()
        .into_iter()
        .find(|query| query.kind == "PTR" || query.name.ends_with(".arpa"))
    {
        Some(query) => Err(format!("asked {query:?}")),
        None => Ok(()),
    }
}

/// A line of the rule table as the cases write it.
fn rule(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| matches!(*word, "allow" | "deny"))?;
    Some(
        words[at..]
            .iter()
            .take(2)
            .copied()
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// Q030 with the option that it names: an address is no way around a denied
/// name.
fn without_literals() -> TestResult {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let mut case = cases.into_iter().find(|case| case["id"] == "Q030").unwrap();
    assert_eq!(case["expect"]["or_option"], "ip_literals=deny -> 403");
    case["expect"]["dial"] = Value::Array(Vec::new());
    case["expect"]["verdict"] = "deny".into();
    Case(case).judge_request(&[("EGRESS_HTTP_PROXY_IP_LITERALS", "deny")])
}
