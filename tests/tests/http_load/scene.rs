//! A proxy, its clients' network, and servers in a process of their own.

use std::{env, net::SocketAddr, time::Duration};

use egress_lab::{
    Answer, Command, Family, Page, Process, ProxyLab, RunningProxy, Wire, allow_open_files,
    eventually, harness::libtest_mimic::Failed, program,
};

use crate::servers;

pub(crate) const PROGRAM: &str = "egress-http-proxy";

/// What the proxy needs for 9 000 tunnels, and what is open besides.
const FILES: u64 = 20_000;

/// How long something may take that takes a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const OPEN_TUNNELS: &str = "egress_http_proxy_open_tunnels";
pub(crate) const OPEN_CONNECTIONS: &str = "egress_http_proxy_open_connections";

pub(crate) struct Scene {
    pub(crate) lab: ProxyLab,
    pub(crate) proxy: RunningProxy,
    _servers: Process,
}

impl Scene {
    /// A proxy that allows everything, unless its environment is changed.
    pub(crate) fn start_with(change: impl FnOnce(Command) -> Command) -> Result<Self, Failed> {
        allow_open_files(FILES)?;
        let lab = ProxyLab::build(&["198.51.100.1/32".parse()?])?;
        // All go from one address to another: a port that was used must be good
        // again at once.
        for host in [lab.client(), lab.pod()] {
            host.netns().sysctl(&[("net/ipv4/tcp_tw_reuse", "1")])?;
        }
        for name in ["a.test", "b.test"] {
            let answer = Answer::Addresses(vec!["198.51.100.1".parse()?]);
            lab.resolver().answer(name, 3600, answer);
        }
        let outside = lab.outside().netns();
        let servers = Command::new(outside, env::current_exe()?)
            .arg(servers::ROLE)
            .spawn()?;
        servers.await_stdout(servers::READY, PATIENCE)?;
        let command = lab
            .pod()
            .command(program(PROGRAM)?)
            .deadline(PATIENCE)
            .env("EGRESS_HTTP_PROXY_DESTINATION", "*")
            .env("EGRESS_THREADS", "2");
        let proxy = lab.start(change(command))?;
        Ok(Self {
            lab,
            proxy,
            _servers: servers,
        })
    }

    /// Address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.lab.pod().socket(Family::Ipv4, 8080)
    }

    /// A new connection to the proxy.
    pub(crate) fn client(&self) -> Wire {
        Wire::connect(self.lab.client().netns(), self.address()).unwrap()
    }

    /// Status of the answer to `GET http://HOST/` over a new connection.
    pub(crate) fn status(&self, host: &str) -> u16 {
        let mut client = self.client();
        client.say(get(host));
        client.reply("GET").status
    }

    /// A page of the admin endpoint, which answers within two seconds.
    #[track_caller]
    pub(crate) fn page(&self, path: &str) -> Page {
        let admin = self.lab.pod().socket(Family::Ipv4, 9090);
        match self.lab.client().get(admin, path) {
            Ok(page) => page,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Value of a metric; 0 where it was never touched.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.page("/metrics").sample(name).unwrap_or_default()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn await_metric(&self, name: &str, value: f64) {
        eventually(PATIENCE, || match self.metric(name) {
            now if now == value => Ok(()),
            now => Err(format!("{name} is {now} and not {value}")),
        });
    }
}

/// `GET http://HOST/`.
pub(crate) fn get(host: &str) -> String {
    format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
}
