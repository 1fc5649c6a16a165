//! The three programs, each with traffic of every kind.

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use egress_lab::{
    Answer, Door, Family, Host, Lab, Node, Protocol, ProxyLab, RouterConfig, Server, UdpClient,
    Wire, eventually, harness::libtest_mimic::Failed, program,
};

use crate::exported::{Exported, missing};

const ADMIN: u16 = 9090;

/// The router reads its counters every five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Refuses where nothing listens.
const OUTSIDE: &str = "198.51.100.1";

/// What they export: the programs are started once for all tests.
pub(crate) fn exported() -> &'static Exported {
    static EXPORTED: LazyLock<Exported> = LazyLock::new(|| {
        let mut exported = Exported::default();
        for (job, page) in [
            ("egress-redirect", redirect()),
            ("egress-http-proxy", http_proxy()),
            ("egress-dns-proxy", dns_proxy()),
        ] {
            match page {
                Ok(page) => exported.add(job, &page),
                Err(failed) => panic!("{job}: {}", failed.message().unwrap_or_default()),
            }
        }
        exported
    });
    &EXPORTED
}

/// The metrics of a pod, as soon as those that come last have a sample.
fn scrape(from: &Host, pod: &Host, last: &[&str]) -> String {
    let admin = pod.socket(Family::Ipv4, ADMIN);
    eventually(PATIENCE, || match from.get(admin, "/metrics") {
        Ok(page) if page.status == 200 => match &missing(&page.body, last)[..] {
            [] => Ok(page.body),
            missing => Err(format!("no sample of {missing:?}")),
        },
        other => Err(format!("{other:?}")),
    })
}

fn redirect() -> Result<String, Failed> {
    let lab = Lab::builder().build()?;
    let server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
    let config = RouterConfig::new(&[Family::Ipv4]).with("EGRESS_ROUTER_MODE", "legacy");
    let router = config.command(lab.router_pod())?.spawn()?;
    router.await_stderr("the network is set up", PATIENCE)?;
    let client = lab.client(Node::Two);
    client.tcp(lab.router_pod().socket(Family::Ipv4, 80), "hello")?;
    // The gateway is asked, and the kernel's counters are read, by and by.
    let last = [
        "egress_router_gateway_answers",
        "egress_router_mapping_bytes_total",
        "egress_router_bytes_total",
    ];
    let page = scrape(client, lab.router_pod(), &last);
    server.stop();
    Ok(page)
}

/// A network whose outside has a name and a server.
fn network() -> Result<ProxyLab, Failed> {
    let lab = ProxyLab::build(&[format!("{OUTSIDE}/24").parse()?])?;
    let answer = Answer::Addresses(vec![OUTSIDE.parse()?]);
    lab.resolver().answer("a.test", 60, answer);
    lab.resolver().answer("failing.test", 60, Answer::Failure);
    Ok(lab)
}

fn http_proxy() -> Result<String, Failed> {
    let lab = network()?;
    let door = Door::open(lab.outside().netns(), SocketAddr::new(OUTSIDE.parse()?, 80))?;
    let command = lab
        .pod()
        .command(program("egress-http-proxy")?)
        .env("EGRESS_HTTP_PROXY_DESTINATION", "!denied.test\n*")
        .env("EGRESS_MAX_CONNECTIONS_PER_CLIENT", "2");
    let _proxy = lab.start(command)?;
    let address = lab.pod().socket(Family::Ipv4, 8080);
    let connect = || Wire::connect(lab.client().netns(), address).unwrap();
    let ask = |request: String, status: u16| {
        let mut client = connect();
        client.say(&request);
        let reply = client.reply("GET");
        assert_eq!(reply.status, status, "{request}");
    };
    ask(get("denied.test"), 403);
    ask(get("nowhere.test"), 502);
    ask(get("failing.test"), 502);
    // Refused by the outside, where nothing listens on that port.
    ask(get("a.test:81"), 502);

    let mut client = connect();
    client.say(get("a.test"));
    let mut origin = door.accept();
    origin.head();
    origin.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.reply("GET").text(), "ok");

    // One more connection than a client may have.
    let _second = connect();
    let mut third = connect();
    third.say(get("a.test"));
    assert_eq!(third.reply("GET").status, 429);
    // What failed is counted when its client has the answer already.
    let last = ["egress_http_proxy_failures_total"];
    Ok(scrape(lab.client(), lab.pod(), &last))
}

fn get(host: &str) -> String {
    format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn dns_proxy() -> Result<String, Failed> {
    let lab = network()?;
    let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 53)];
    let _server = Server::start(lab.outside().netns(), &[OUTSIDE.parse()?], &ports)?;
    let lines = "8000 a.test 80\n8001 198.51.100.9 80\n5353/udp a.test 53";
    let command = lab
        .pod()
        .command(program("egress-dns-proxy")?)
        .env("EGRESS_DNS_PROXY_DESTINATION", lines);
    let _proxy = lab.start(command)?;
    let (client, pod) = (lab.client(), lab.pod());
    client.tcp(pod.socket(Family::Ipv4, 8000), "hello")?;
    // Nothing listens there: its address is not healthy.
    let refused = client.tcp(pod.socket(Family::Ipv4, 8001), "hello");
    assert!(refused.is_err(), "{refused:?}");
    let datagrams = pod.socket(Family::Ipv4, 5353);
    let datagrams = client
        .netns()
        .run(|| UdpClient::connect(datagrams, Duration::from_secs(2)))?;
    datagrams.ask("hello")?;
    let last = ["egress_dns_proxy_connection_failures_total"];
    Ok(scrape(client, pod, &last))
}
