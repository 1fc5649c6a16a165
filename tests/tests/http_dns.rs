//! Names: what the HTTP proxy makes of every answer, late answer and missing
//! answer of a DNS server.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

use std::{
    collections::BTreeSet,
    io::{BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use egress_lab::{
    Answer, Command, Family, Origin, Protocol, ProxyLab, Reply, RunningProxy, address,
    harness::{self, TestResult, libtest_mimic::Failed},
    program,
    proxy::NAME_SERVER,
    trials,
};
use ipnet::IpNet;

const PROGRAM: &str = "egress-http-proxy";

/// Drops what is sent to it: nobody has it.
const BLACK_HOLE: &str = "192.0.2.66";
const BLACK_HOLE_V6: &str = "2001:db8:25::66";

/// How long one request may take, so that a hanging one is told from a slow
/// machine.
const DEADLINE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    harness::run_waiting(
        &[PROGRAM],
        trials![
            an_address_that_was_not_judged_is_not_dialled,
            no_name_leads_to_the_pod_itself,
            a_retry_stays_with_the_answer_that_was_judged,
            of_mixed_answers_only_allowed_addresses_are_dialled,
            one_denied_address_denies_the_name,
            aliases_are_followed,
            sixty_addresses,
            an_answer_too_long_for_udp,
            names_with_ipv6_addresses_only,
            names_without_an_address,
            a_name_server_that_fails,
            a_name_server_that_says_nothing,
            a_dead_name_server_before_the_living_one,
            a_closed_name_server_before_the_living_one,
            a_black_holed_address_before_the_living_one,
            a_black_holed_family,
            names_in_use_outlive_their_name_server,
            changes_are_followed,
            names_are_absolute,
        ],
    )
}

/// A proxy with origins on port 80 of 198.51.100.1, 203.0.113.2,
/// 2001:db8:25::25, and of the pod's own loopback.
struct Setup {
    lab: ProxyLab,
    outside: Origin,
    inside: Origin,
    proxy: RunningProxy,
}

/// What a request came to.
#[derive(Debug)]
struct Outcome {
    reply: Reply,
    took: Duration,
}

impl Setup {
    fn start(rules: &str) -> Result<Self, Failed> {
        Self::start_with(rules, |command| command)
    }

    fn start_with(rules: &str, change: impl FnOnce(Command) -> Command) -> Result<Self, Failed> {
        // All of 198.51.100.0/24 is there, and refuses but for the one.
        let lab = ProxyLab::build(
            &["198.51.100.1/24", "203.0.113.2/32", "2001:db8:25::25/128"]
                .map(|address| address.parse::<IpNet>().unwrap()),
        )?;
        let outside = ["198.51.100.1:80", "203.0.113.2:80", "[2001:db8:25::25]:80"]
            .map(|endpoint| endpoint.parse().unwrap());
        let outside = Origin::start(lab.outside().netns(), &outside)?;
        let inside = [SocketAddr::from((Ipv4Addr::LOCALHOST, 80))];
        let inside = Origin::start(lab.pod().netns(), &inside)?;
        let command = lab
            .pod()
            .command(program(PROGRAM)?)
            .env("EGRESS_HTTP_PROXY_DESTINATION", rules);
        let proxy = lab.start(change(command))?;
        Ok(Self {
            lab,
            outside,
            inside,
            proxy,
        })
    }

    fn answer(&self, name: &str, ttl: u32, answer: Answer) {
        self.lab.resolver().answer(name, ttl, answer);
    }

    fn addresses(&self, name: &str, addresses: &[&str]) {
        self.answer(name, 0, Answer::Addresses(parsed(addresses)));
    }

    /// `GET http://NAME/` over a new connection.
    fn get(&self, name: &str) -> Result<Outcome, Failed> {
        let proxy = self.lab.pod().socket(Family::Ipv4, 8080);
        let mut stream = self
            .lab
            .client()
            .netns()
            .run(|| TcpStream::connect(proxy))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let start = Instant::now();
        stream.write_all(
            format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let reply = Reply::read(&mut BufReader::new(stream), "GET")?
            .ok_or("the connection was closed without an answer")?;
        let took = start.elapsed();
        Ok(Outcome { reply, took })
    }

    /// The proxy answers 200, with what the origin at this address says.
    #[track_caller]
    fn expect_from(&self, name: &str, address: &str) -> Result<Duration, Failed> {
        let outcome = self.get(name)?;
        let server = SocketAddr::new(address.parse()?, 80);
        let expected = (200, format!("hello from {server}\n"));
        if (outcome.reply.status, outcome.reply.text()) == expected {
            Ok(outcome.took)
        } else {
            Err(format!("{name}: not from {server}: {outcome:#?}").into())
        }
    }

    /// The proxy refuses with this status, and its Proxy-Status says why.
    fn expect_error(&self, name: &str, status: u16, error: &str) -> Result<Duration, Failed> {
        let outcome = self.get(name)?;
        let why = outcome.reply.fields("proxy-status").collect::<String>();
        let is_expected = outcome.reply.status == status && why.contains(&format!("error={error}"));
        if is_expected {
            Ok(outcome.took)
        } else {
            Err(format!("{name}: not {status} with {error}: {outcome:#?}").into())
        }
    }

    /// How often a name was asked for, by type.
    fn asked(&self, name: &str, kind: &str) -> usize {
        let queries = self.lab.resolver().queries();
        let same = |query: &&egress_lab::Query| query.name == name && query.kind == kind;
        queries.iter().filter(same).count()
    }

    /// Ends the proxy, and tells which addresses it dialled.
    fn dialled(self) -> Result<BTreeSet<IpAddr>, Failed> {
        let _ = self.proxy.stop()?.expect(0);
        let arrivals = [self.inside.settle()?, self.outside.settle()?].concat();
        Ok(arrivals.iter().map(|arrival| arrival.server.ip()).collect())
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    parsed(addresses).into_iter().collect()
}

// --- what is judged is what is dialled ---

fn an_address_that_was_not_judged_is_not_dialled() -> TestResult {
    let setup = Setup::start("198.51.100.0/24")?;
    let lists = [["198.51.100.1"], ["203.0.113.2"], ["127.0.0.1"]];
    let lists = lists.map(|list| parsed(&list)).to_vec();
    setup.answer("rebind.test", 0, Answer::Rotating(lists));
    let start = Instant::now();
    let mut statuses = BTreeSet::new();
    // Six answers: every list has been judged, and been there between judging
    // and dialling if that is when they are asked for.
    while setup.asked("rebind.test", "A") < 6 {
        assert!(start.elapsed() < Duration::from_secs(30), "{statuses:?}");
        statuses.insert(setup.get("rebind.test")?.reply.status);
    }
    assert_eq!(statuses, BTreeSet::from([200, 403]));
    assert_eq!(setup.dialled()?, set(&["198.51.100.1"]));
    Ok(())
}

fn no_name_leads_to_the_pod_itself() -> TestResult {
    let setup = Setup::start("*.test")?;
    let own = setup.lab.pod().addresses();
    let own = own.iter().copied().chain(Family::ALL.map(address::source));
    let local = parsed(&[
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "::1",
        "::",
        "169.254.169.254",
    ]);
    for (number, address) in own.chain(local).enumerate() {
        let name = format!("own{number}.test");
        setup.answer(&name, 0, Answer::Addresses(vec![address]));
        setup.expect_error(&name, 403, "destination_ip_prohibited")?;
    }
    assert_eq!(setup.dialled()?, BTreeSet::new());
    Ok(())
}

fn a_retry_stays_with_the_answer_that_was_judged() -> TestResult {
    let setup = Setup::start("198.51.100.0/24")?;
    setup.addresses(
        "retry.test",
        &["198.51.100.9", "198.51.100.8", "198.51.100.1"],
    );
    setup.expect_from("retry.test", "198.51.100.1")?;
    assert_eq!(setup.asked("retry.test", "A"), 1);
    // All of them refuse: the error is the network's, and nothing else is tried.
    setup.addresses("closed.test", &["198.51.100.9", "203.0.113.2"]);
    setup.expect_error("closed.test", 502, "connection_refused")?;
    assert_eq!(setup.asked("closed.test", "A"), 1);
    assert_eq!(setup.dialled()?, set(&["198.51.100.1"]));
    Ok(())
}

fn of_mixed_answers_only_allowed_addresses_are_dialled() -> TestResult {
    let setup = Setup::start("198.51.100.0/24")?;
    setup.addresses("four.test", &["203.0.113.2", "198.51.100.1"]);
    setup.expect_from("four.test", "198.51.100.1")?;
    setup.addresses("both.test", &["2001:db8:25::25", "198.51.100.1"]);
    setup.expect_from("both.test", "198.51.100.1")?;
    setup.addresses("none.test", &["2001:db8:25::25", "203.0.113.2"]);
    setup.expect_error("none.test", 403, "http_request_denied")?;
    // The guard's addresses are not dialled either, nor do they take the
    // others along.
    setup.addresses("guard.test", &["127.0.0.1", "198.51.100.1"]);
    let reply = setup.get("guard.test")?.reply;
    assert!(matches!(reply.status, 200 | 403), "{reply:?}");
    assert_eq!(setup.dialled()?, set(&["198.51.100.1"]));
    Ok(())
}

fn one_denied_address_denies_the_name() -> TestResult {
    let setup = Setup::start("!2001:db8:25::/64\n!203.0.113.2\n*")?;
    for (number, addresses) in [
        ["198.51.100.1", "203.0.113.2"],
        ["203.0.113.2", "198.51.100.1"],
        ["198.51.100.1", "2001:db8:25::25"],
    ]
    .iter()
    .enumerate()
    {
        let name = format!("denied{number}.test");
        setup.addresses(&name, addresses);
        setup.expect_error(&name, 403, "http_request_denied")?;
    }
    assert_eq!(setup.dialled()?, BTreeSet::new());
    Ok(())
}

// --- answers of every form ---

fn aliases_are_followed() -> TestResult {
    let setup = Setup::start("alias0.test\nbroken.test")?;
    // The names on the way are nobody's business: they are not judged.
    for number in 0..8 {
        let next = format!("alias{}.test", number + 1);
        setup.answer(&format!("alias{number}.test"), 60, Answer::Alias(next));
    }
    setup.addresses("alias8.test", &["198.51.100.1"]);
    setup.expect_from("alias0.test", "198.51.100.1")?;
    // An alias of a name that does not exist.
    setup.answer("broken.test", 60, Answer::Alias("absent.test".to_owned()));
    setup.expect_error("broken.test", 502, "dns_error")?;
    Ok(())
}

fn sixty_addresses() -> TestResult {
    let setup = Setup::start("*.test")?;
    let refuse = (2..61).map(|host| IpAddr::from([198, 51, 100, host]));
    let living = parsed(&["198.51.100.1"]);
    let all: Vec<_> = refuse.chain(living).collect();
    assert_eq!(all.len(), 60);
    setup.answer("sixty.test", 60, Answer::Addresses(all));
    // 59 refusals cost no time worth mentioning.
    let took = setup.expect_from("sixty.test", "198.51.100.1")?;
    assert!(took < Duration::from_secs(2), "{took:?}");
    Ok(())
}

fn an_answer_too_long_for_udp() -> TestResult {
    let setup = Setup::start("*.test")?;
    // 400 records take 6.4 kB, more than anybody takes by UDP.
    let many = (0..400_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([198, 18, high, low])
    });
    let all: Vec<_> = parsed(&["198.51.100.1"]).into_iter().chain(many).collect();
    setup.answer("long.test", 60, Answer::Addresses(all));
    setup.expect_from("long.test", "198.51.100.1")?;
    let by = |protocol| {
        let queries = setup.lab.resolver().queries();
        queries
            .iter()
            .any(|query| (query.kind.as_str(), query.protocol) == ("A", protocol))
    };
    assert!(by(Protocol::Udp) && by(Protocol::Tcp));
    Ok(())
}

fn names_with_ipv6_addresses_only() -> TestResult {
    let setup = Setup::start("2001:db8:25::/64")?;
    setup.addresses("six.test", &["2001:db8:25::25"]);
    setup.expect_from("six.test", "2001:db8:25::25")?;
    let dialled = setup.outside.arrivals();
    // As the outside must see it.
    assert_eq!(dialled[0].client.ip(), address::source(Family::Ipv6));
    Ok(())
}

// --- no answers ---

fn names_without_an_address() -> TestResult {
    let setup = Setup::start("*")?;
    setup.expect_error("absent.test", 502, "dns_error")?;
    setup.addresses("empty.test", &[]);
    setup.expect_error("empty.test", 502, "dns_error")?;
    // The answer is no is an answer: it is kept, and the second time is free.
    let asked = setup.asked("absent.test", "A");
    setup.expect_error("absent.test", 502, "dns_error")?;
    assert_eq!(setup.asked("absent.test", "A"), asked);
    Ok(())
}

fn a_name_server_that_fails() -> TestResult {
    let setup = Setup::start("*")?;
    setup.answer("broken.test", 0, Answer::Failure);
    let took = setup.expect_error("broken.test", 502, "dns_error")?;
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Others are not concerned, and it is well again when it is.
    setup.addresses("well.test", &["198.51.100.1"]);
    setup.expect_from("well.test", "198.51.100.1")?;
    setup.addresses("broken.test", &["198.51.100.1"]);
    egress_lab::eventually(Duration::from_secs(5), || {
        setup
            .expect_from("broken.test", "198.51.100.1")
            .map_err(|error| error.message().unwrap_or_default().to_owned())
    });
    Ok(())
}

fn a_name_server_that_says_nothing() -> TestResult {
    let setup = Setup::start("*")?;
    setup.answer("silent.test", 0, Answer::Silence);
    let took = setup.expect_error("silent.test", 504, "dns_timeout")?;
    assert!(took < Duration::from_secs(11), "{took:?}");
    Ok(())
}

fn a_dead_name_server_before_the_living_one() -> TestResult {
    name_server_first(BLACK_HOLE.parse()?, Duration::from_secs(1))
}

fn a_closed_name_server_before_the_living_one() -> TestResult {
    name_server_first(address::gateway(Family::Ipv4), Duration::from_secs(1))
}

/// The first name server does not work; names are found, each in time.
fn name_server_first(dead: IpAddr, time: Duration) -> TestResult {
    let resolv_conf = format!("nameserver {dead}\nnameserver {NAME_SERVER}\n");
    let setup = Setup::start_with("*", |command| command.resolv_conf(&resolv_conf))?;
    for number in 0..5 {
        let name = format!("name{number}.test");
        setup.addresses(&name, &["198.51.100.1"]);
        let took = setup.expect_from(&name, "198.51.100.1")?;
        assert!(took < time, "{name} took {took:?}");
    }
    Ok(())
}

// --- addresses that do not answer ---

fn a_black_holed_address_before_the_living_one() -> TestResult {
    let setup = Setup::start("*")?;
    setup.addresses("hole.test", &[BLACK_HOLE, "198.51.100.1"]);
    setup.addresses("holes.test", &[BLACK_HOLE, "192.0.2.67", "198.51.100.1"]);
    for name in ["hole.test", "holes.test"] {
        let took = setup.expect_from(name, "198.51.100.1")?;
        assert!(took < Duration::from_secs(1), "{name} took {took:?}");
    }
    Ok(())
}

fn a_black_holed_family() -> TestResult {
    let setup = Setup::start("*")?;
    setup.addresses("six-is-dead.test", &[BLACK_HOLE_V6, "198.51.100.1"]);
    let took = setup.expect_from("six-is-dead.test", "198.51.100.1")?;
    assert!(took < Duration::from_secs(1), "{took:?}");
    setup.addresses("four-is-dead.test", &[BLACK_HOLE, "2001:db8:25::25"]);
    let took = setup.expect_from("four-is-dead.test", "2001:db8:25::25")?;
    assert!(took < Duration::from_secs(1), "{took:?}");
    Ok(())
}

// --- time ---

fn names_in_use_outlive_their_name_server() -> TestResult {
    let mut setup = Setup::start("198.51.100.0/24\n*.test")?;
    let living = || Answer::Addresses(parsed(&["198.51.100.1"]));
    let names = ["used1.test", "used2.test"];
    for name in names {
        setup.answer(name, 1, living());
        setup.expect_from(name, "198.51.100.1")?;
    }
    // Each outage lasts longer than the answers live.
    let keeps_working = |setup: &Setup| -> TestResult {
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(3) {
            for name in names {
                slowest = slowest.max(setup.expect_from(name, "198.51.100.1")?);
            }
        }
        // RFC 8767 section 5: a client is not kept waiting for long.
        assert!(slowest < Duration::from_millis(2500), "{slowest:?}");
        Ok(())
    };
    for outage in [Answer::Silence, Answer::Failure] {
        for name in names {
            setup.answer(name, 1, outage.clone());
        }
        keeps_working(&setup)?;
    }
    // A name that was never seen cannot be saved, nor does it harm others.
    setup.lab.stop_resolver();
    let reply = setup.get("new.test")?.reply;
    assert!(matches!(reply.status, 502 | 504), "{reply:?}");
    keeps_working(&setup)
}

fn changes_are_followed() -> TestResult {
    let setup = Setup::start("*.test")?;
    setup.answer(
        "moves.test",
        1,
        Answer::Addresses(parsed(&["198.51.100.1"])),
    );
    setup.expect_from("moves.test", "198.51.100.1")?;
    setup.answer("moves.test", 1, Answer::Addresses(parsed(&["203.0.113.2"])));
    egress_lab::eventually(Duration::from_secs(4), || {
        setup
            .expect_from("moves.test", "203.0.113.2")
            .map_err(|error| error.message().unwrap_or_default().to_owned())
    });
    Ok(())
}

fn names_are_absolute() -> TestResult {
    let resolv_conf = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local\n\
         nameserver {NAME_SERVER}\noptions ndots:5\n"
    );
    let setup = Setup::start_with("*", |command| command.resolv_conf(&resolv_conf))?;
    setup.addresses("web", &["198.51.100.1"]);
    setup.expect_from("web", "198.51.100.1")?;
    setup.expect_error("absent", 502, "dns_error")?;
    let names: BTreeSet<_> = setup
        .lab
        .resolver()
        .queries()
        .into_iter()
        .map(|query| query.name)
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["web".to_owned(), "absent".to_owned()])
    );
    Ok(())
}
