//! A client's way to the site: through the proxy, or without.

use std::{fs, path::PathBuf, time::Duration};

use egress_lab::{
    Answer, Command, Family, Identity, Output, ProxyLab, RunningProxy,
    harness::libtest_mimic::Failed, program,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::site::{Site, pattern};

pub(crate) const PROGRAM: &str = "egress-http-proxy";

/// The site, for those who may visit it; what else is not allowed.
pub(crate) const ALLOWED: &str = "a.test";

/// The same site under a name that is not on the list. Were it dialled, it
/// would answer.
pub(crate) const DENIED: &str = "b.test";

/// How long one visit may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Site, proxy and a folder for files.
pub(crate) struct Setup {
    pub(crate) lab: ProxyLab,
    pub(crate) folder: TempDir,
    pub(crate) identity: Identity,
    proxy: RunningProxy,
    _site: Site,
}

/// A program of the machine, and how it is told what to fetch.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) program: &'static str,
    /// Arguments: URL, file for the answer, file with the authority, and the
    /// file to send, if any.
    pub(crate) arguments: fn(&str, &str, &str, Option<&str>) -> Vec<String>,
    /// What it says when the proxy refuses a tunnel and when it refuses a
    /// request. It fails in either case.
    pub(crate) refusals: [&'static str; 2],
}

impl Setup {
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::start_with(|command, _| command)
    }

    pub(crate) fn start_with(
        change: impl FnOnce(Command, &TempDir) -> Command,
    ) -> Result<Self, Failed> {
        let addresses = ["198.51.100.1/32", "203.0.113.2/32"];
        let lab = ProxyLab::build(&addresses.map(|address| address.parse().unwrap()))?;
        let folder = tempfile::tempdir()?;
        let proxy = lab.pod().address(Family::Ipv4).to_string();
        let identity = Identity::create(&[ALLOWED, DENIED, &proxy])?;
        identity.write_to(folder.path())?;
        let endpoints = |port| {
            ["198.51.100.1", "203.0.113.2"].map(|ip| format!("{ip}:{port}").parse().unwrap())
        };
        let site = Site::start(
            lab.outside().netns(),
            &endpoints(80),
            &endpoints(443),
            &identity,
            folder.path(),
        )?;
        for (name, address) in [(ALLOWED, "198.51.100.1"), (DENIED, "203.0.113.2")] {
            let answer = Answer::Addresses(vec![address.parse()?]);
            lab.resolver().answer(name, 300, answer);
        }
        let command = lab
            .pod()
            .command(program(PROGRAM)?)
            .env("EGRESS_HTTP_PROXY_DESTINATION", ALLOWED);
        let proxy = lab.start(change(command, &folder))?;
        Ok(Self {
            lab,
            folder,
            identity,
            proxy,
            _site: site,
        })
    }

    /// Path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Content of a file in the folder.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, Failed> {
        fs::read(self.file(name)).map_err(|error| format!("{name}: {error}").into())
    }

    /// A program of the machine where only the proxy can be reached, and with
    /// the variables that say so.
    pub(crate) fn through(&self, program: &str) -> Command {
        let proxy = format!("http://{}", self.lab.pod().socket(Family::Ipv4, 8080));
        let command = self.lab.client().command(program);
        let command = ["http_proxy", "https_proxy"]
            .iter()
            .fold(command, |command, name| command.env(*name, &proxy));
        self.equip(command)
    }

    /// A program of the machine where the site can be reached.
    pub(crate) fn direct(&self, program: &str) -> Command {
        self.equip(self.lab.pod().command(program))
    }

    fn equip(&self, command: Command) -> Command {
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path().to_str().unwrap())
            .env("LC_ALL", "C.UTF-8")
            // Where Debian keeps modules, whoever made the node that runs.
            .env("NODE_PATH", "/usr/share/nodejs")
            .deadline(DEADLINE)
    }

    /// Ends the proxy, which must end well.
    pub(crate) fn stop(self) -> Result<Output, Failed> {
        Ok(self.proxy.stop()?.expect(0))
    }
}

/// What is asked of every client: it gets the same bytes through the proxy as
/// without, plain and in a tunnel, sends the same, and learns of a refusal.
pub(crate) fn visits(client: Client) -> Result<(), Failed> {
    let setup = Setup::start()?;
    let authority = setup.path("ca.pem");
    let sent = pattern(7, 300_000);
    fs::write(setup.file("sent"), &sent)?;
    let to_send = setup.path("sent");
    let run = |command: Command, url: &str, into: &str, body: Option<&str>| {
        let arguments = (client.arguments)(url, &setup.path(into), &authority, body);
        let command = arguments.into_iter().fold(command, Command::arg);
        command.run()
    };
    for scheme in ["http", "https"] {
        for (path, body, expected) in [
            ("/bytes/1", None, pattern(0, 1)),
            ("/bytes/300000", None, pattern(0, 300_000)),
            ("/stream/300000", None, pattern(0, 300_000)),
            ("/echo", Some(to_send.as_str()), sent.clone()),
        ] {
            let url = format!("{scheme}://{ALLOWED}{path}");
            for (into, command) in [
                ("direct", setup.direct(client.program)),
                ("proxied", setup.through(client.program)),
            ] {
                let output = run(command, &url, into, body)?;
                let got = setup.read(into).unwrap_or_default();
                if output.code != 0 || got != expected {
                    return Err(format!(
                        "{into} {url}: {} of {} bytes, {output:#?}",
                        got.len(),
                        expected.len()
                    )
                    .into());
                }
                fs::remove_file(setup.file(into))?;
            }
        }
    }
    for (scheme, refusal) in ["https", "http"].iter().zip(client.refusals) {
        let url = format!("{scheme}://{DENIED}/bytes/10");
        let output = run(setup.through(client.program), &url, "denied", None)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        let got = setup.read("denied").unwrap_or_default();
        if output.code == 0 || !said.contains(refusal) || got == pattern(0, 10) {
            return Err(format!("{url} is denied, but {output:#?}").into());
        }
    }
    // Not every client says who refused it; the proxy does.
    let log = setup.stop()?.stderr;
    let denials = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["host"] == DENIED && line["decision"] == "denied")
        .filter(|line| line["status"] == 403);
    assert!(denials.count() >= 2, "{log}");
    Ok(())
}
