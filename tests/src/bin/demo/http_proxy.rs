//! http-proxy mode: clients reach names, by rules.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use egress_lab::{Answer, Family, Host, Origin, Protocol, Reply, Seen, Volume};

use crate::narration::{log_lines, title};
use crate::stage::{DEADLINE, Stage};
use crate::visit;

const PROGRAM: &str = "egress-http-proxy";

/// What the ConfigMap holds, at first and later.
const RULES: &str = "\
!internal.example.com
*.example.com
";
const MORE_RULES: &str = "\
!internal.example.com
*.example.com
example.org
";

/// Names, and the outside server that each leads to.
const NAMES: [(&str, usize); 4] = [
    ("www.example.com", 0),
    ("internal.example.com", 1),
    ("api.example.com", 1),
    ("example.org", 2),
];

/// Shows what is allowed, what is denied, a tunnel, and a change of the rules.
pub(crate) fn show(stage: &mut Stage, keep: bool) -> Result<(), Box<dyn Error>> {
    for (name, server) in NAMES {
        let address = stage.lab.outside(server).address(Family::Ipv4);
        let answer = Answer::Addresses(vec![address]);
        stage.lab.resolver().answer(name, 60, answer);
    }
    let origins = [0, 1, 2]
        .map(|index| {
            let server = stage.lab.outside(index);
            Origin::start(server.netns(), &[server.socket(Family::Ipv4, 80)])
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let _behind_tunnel = stage.lab.outside(1).serve(&[(Protocol::Tcp, 443)])?;
    let service = stage
        .lab
        .add_service(&stage.pod, &[(Protocol::Tcp, 8080)])?;

    title("http-proxy mode: egress-router-init redirects nothing, sets up the network");
    stage.set_up(stage.router("http-proxy")?)?;

    let mut volume = Volume::new(&[("destination", RULES)])?;
    let list = volume.file("destination").display().to_string();
    let proxy = stage
        .proxy(PROGRAM)?
        .env("EGRESS_HTTP_PROXY_DESTINATION_FILE", list);

    title("egress-http-proxy check-url: what would become of a request, and why");
    for url in [
        "http://www.example.com/",
        "https://internal.example.com/",
        "http://example.org/",
    ] {
        let output = proxy.clone().arg("check-url").arg(url).run()?;
        print!("{}", output.stdout);
    }

    title("egress-http-proxy, as the main container runs it: without any capability");
    let process = stage.start(proxy)?;

    title("a client on node2 with http_proxy and https_proxy set to the Service");
    let browser = Browser {
        host: &stage.far,
        proxy: SocketAddr::new(service.address(Family::Ipv4), 8080),
    };
    for url in [
        "http://www.example.com/",
        "http://internal.example.com/",
        "http://example.org/",
    ] {
        browser.get(url, &origins)?;
    }
    browser.tunnel("api.example.com:443")?;

    title("the ConfigMap gets another line: in force without a restart");
    volume.update(&[("destination", MORE_RULES)])?;
    log_lines(&process, &["the rules were reloaded"], 1);
    browser.get("http://example.org/", &origins)?;

    title("what the proxy does not do");
    let (source, answer) = stage.ask_from_lan(8080);
    match answer {
        Ok(seen) => return Err(format!("{source} answered the physical network: {seen}").into()),
        Err(error) => {
            println!("a host of the physical network, to the proxy by {source}: {error}");
        }
    }

    title("its access log: a line for each request or tunnel, at its end");
    log_lines(&process, &[" request ", " tunnel "], 5);

    title("its metrics, in part: curl http://POD:9090/metrics");
    let admin = stage.pod.socket(Family::Ipv4, 9090);
    let metrics = stage.near.get(admin, "/metrics")?.body;
    let shown = [
        "egress_http_proxy_decisions_total{",
        "egress_http_proxy_requests_total{",
    ];
    for line in metrics.lines() {
        if shown.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0") {
            println!("{line}");
        }
    }

    if keep {
        return Ok(visit::keep(stage)?);
    }
    stage.clear(process, stage.router("http-proxy")?)?;
    Ok(())
}

/// A client of the proxy.
struct Browser<'a> {
    host: &'a Host,
    proxy: SocketAddr,
}

impl Browser<'_> {
    /// Asks for a URL, and says what came back and whom the server saw.
    fn get(&self, url: &str, origins: &[Origin]) -> io::Result<()> {
        let authority = url.trim_start_matches("http://").trim_end_matches('/');
        let (_, reply) = self.ask("GET", url, authority)?;
        let text = reply.text();
        let text = text.trim_end();
        print!("GET {url}: {} {text:?}", reply.status);
        let arrival = origins
            .iter()
            .flat_map(Origin::arrivals)
            .find(|arrival| text == format!("hello from {}", arrival.server));
        match arrival {
            Some(arrival) => {
                println!(": server {} saw {}", arrival.server, arrival.client.ip());
            }
            None => println!(", {}", proxy_status(&reply)),
        }
        Ok(())
    }

    /// Opens a tunnel, and speaks with the server at its end.
    fn tunnel(&self, authority: &str) -> Result<(), Box<dyn Error>> {
        let (mut stream, reply) = self.ask("CONNECT", authority, authority)?;
        if reply.status != 200 {
            return Err(format!("CONNECT {authority}: {}", reply.head).into());
        }
        stream.get_mut().write_all(b"hello\n")?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let seen: Seen = line.parse()?;
        println!(
            "CONNECT {authority}: {}, and in the tunnel server {} saw {} say {:?}",
            reply.status,
            seen.server,
            seen.client.ip(),
            seen.payload
        );
        Ok(())
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        authority: &str,
    ) -> io::Result<(BufReader<TcpStream>, Reply)> {
        let connect = || TcpStream::connect_timeout(&self.proxy, DEADLINE);
        let mut stream = BufReader::new(self.host.netns().run(connect)?);
        stream.get_ref().set_read_timeout(Some(DEADLINE))?;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let reply = Reply::read(&mut stream, method)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((stream, reply))
    }
}

/// Why the proxy answered itself (RFC 9209).
fn proxy_status(reply: &Reply) -> String {
    let values: Vec<_> = reply.fields("proxy-status").collect();
    format!("Proxy-Status: {}", values.join(", "))
}
