//! A proxy between a client and an origin that both speak by hand.

use std::{net::SocketAddr, time::Duration};

use egress_lab::{
    Answer, Command, Door, Family, Output, Page, ProxyLab, RunningProxy, Wire, eventually,
    harness::libtest_mimic::Failed, program,
};

pub(crate) const PROGRAM: &str = "egress-http-proxy";

/// Port of the proxy, and of its admin endpoint.
pub(crate) const PORT: u16 = 8080;
pub(crate) const ADMIN: u16 = 9090;

/// Where the origin listens: `a.test`.
const ORIGIN: &str = "198.51.100.1:80";

/// How long it may take until something is seen that happens at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Scene {
    pub(crate) lab: ProxyLab,
    pub(crate) proxy: RunningProxy,
    door: Door,
}

impl Scene {
    /// A proxy that allows everything.
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::start_with(|command| command)
    }

    /// A proxy with a changed environment.
    pub(crate) fn start_with(change: impl FnOnce(Command) -> Command) -> Result<Self, Failed> {
        // All of 198.51.100.0/24 is there, and refuses but for the one.
        let lab = ProxyLab::build(&["198.51.100.1/24"].map(|address| address.parse().unwrap()))?;
        for (name, address) in [
            ("a.test", "198.51.100.1"),
            ("b.test", "198.51.100.1"),
            ("closed.test", "198.51.100.9"),
            ("self.test", "10.128.0.10"),
            ("inside.test", "127.0.0.1"),
        ] {
            let answer = Answer::Addresses(vec![address.parse()?]);
            lab.resolver().answer(name, 300, answer);
        }
        let door = Door::open(lab.outside().netns(), ORIGIN.parse()?)?;
        let command = lab
            .pod()
            .command(program(PROGRAM)?)
            .env("EGRESS_HTTP_PROXY_DESTINATION", "*")
            // One worker has one pool, whose use can be told.
            .env("EGRESS_THREADS", "1");
        let proxy = lab.start(change(command))?;
        Ok(Self { lab, proxy, door })
    }

    /// Address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.lab.pod().socket(Family::Ipv4, PORT)
    }

    /// A new connection to the proxy.
    pub(crate) fn client(&self) -> Wire {
        Wire::connect(self.lab.client().netns(), self.address()).unwrap()
    }

    /// A new client that has sent this.
    pub(crate) fn client_says(&self, bytes: impl AsRef<[u8]>) -> Wire {
        let mut client = self.client();
        client.say(bytes);
        client
    }

    /// The next connection that reaches the origin.
    #[track_caller]
    pub(crate) fn origin(&self) -> Wire {
        self.door.accept()
    }

    /// Whether no connection waits at the origin.
    pub(crate) fn is_quiet(&self) -> bool {
        self.door.is_quiet().unwrap()
    }

    /// A client and an origin with a tunnel between them.
    pub(crate) fn tunnel(&self) -> (Wire, Wire) {
        let mut client = self.client_says(connect("a.test:80"));
        let origin = self.origin();
        assert_eq!(client.reply("CONNECT").status, 200);
        (client, origin)
    }

    /// A page of the admin endpoint.
    pub(crate) fn page(&self, path: &str) -> Page {
        let admin = self.lab.pod().socket(Family::Ipv4, ADMIN);
        self.lab.client().get(admin, path).unwrap()
    }

    /// Value of a metric; 0 where it was never touched.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.page("/metrics").sample(name).unwrap_or_default()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        eventually(PATIENCE, || {
            let page = self.page("/metrics");
            if page.sample(name).unwrap_or_default() == value {
                Ok(())
            } else {
                Err(format!("{name} is not {value}\n{}", page.body))
            }
        });
    }

    /// Ends the proxy, which must end well.
    pub(crate) fn stop(self) -> Result<Output, Failed> {
        Ok(self.proxy.stop()?.expect(0))
    }
}

/// `GET http://HOST/`.
pub(crate) fn get(host: &str) -> String {
    format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// `CONNECT TARGET`.
pub(crate) fn connect(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// A response with this body, on a connection that persists.
pub(crate) fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Whether a head has a field line, written in any case.
pub(crate) fn has(head: &str, line: &str) -> bool {
    head.lines().any(|own| own.eq_ignore_ascii_case(line))
}
