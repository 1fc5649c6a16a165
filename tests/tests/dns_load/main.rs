//! The DNS proxy with thousands of connections that do nothing most of the
//! time, as those of pools do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests end at the first surprise, with the place"
)]

mod crowd;
mod echo;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use egress_lab::{
    Answer, Command, Family, Process, ProxyLab, RunningProxy, Volume, allow_open_files, eventually,
    harness::{self, TestResult, libtest_mimic::Failed},
    program, trials,
};
use nix::sys::signal::Signal;

use crowd::Crowd;

const PROGRAM: &str = "egress-dns-proxy";

const CONNECTIONS: usize = 9000;

/// What a connection that does nothing may cost, in bytes.
const PER_CONNECTION: u64 = 6 * 1024;

/// What the proxy needs for so many, and what is open besides.
const FILES: u64 = 19_000;

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

const LIST: &str = "8000 echo.test 7";

const OPEN: &str =
    "egress_dns_proxy_open_connections{port=\"8000\",protocol=\"tcp\",host=\"echo.test\"}";

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(echo::ROLE) {
        return echo::main();
    }
    harness::run_serially(
        &[PROGRAM],
        trials![
            nine_thousand_idle_connections,
            nine_thousand_are_not_disturbed_by_a_reload_and_cut_off_at_the_end,
        ],
    )
}

struct Scene {
    lab: ProxyLab,
    proxy: RunningProxy,
    volume: Volume,
    _echo: Process,
}

impl Scene {
    fn start(change: impl FnOnce(Command) -> Command) -> Result<Self, Failed> {
        allow_open_files(FILES)?;
        let lab = ProxyLab::build(&["198.51.100.1/32".parse()?])?;
        // Each round takes other ports than those that the last one left in
        // TIME-WAIT, and the kernel is slow to find one among few.
        for host in [lab.client(), lab.pod()] {
            let ports = ("net/ipv4/ip_local_port_range", "10000 65000");
            host.netns().sysctl(&[ports])?;
        }
        let address = Answer::Addresses(vec!["198.51.100.1".parse()?]);
        lab.resolver().answer("echo.test", 1, address);
        let outside = lab.outside().netns();
        let echo = Command::new(outside, env::current_exe()?)
            .arg(echo::ROLE)
            .spawn()?;
        echo.await_stdout(echo::READY, PATIENCE)?;
        let volume = Volume::new(&[("list", LIST)])?;
        let list = volume.file("list");
        let command = lab
            .pod()
            .command(program(PROGRAM)?)
            .env("EGRESS_DNS_PROXY_DESTINATION_FILE", list.to_string_lossy())
            .env("EGRESS_THREADS", "2")
            // Nothing but the connections is measured.
            .env("EGRESS_ACCESS_LOG", "off");
        let proxy = lab.start(change(command))?;
        Ok(Self {
            lab,
            proxy,
            volume,
            _echo: echo,
        })
    }

    fn crowd(&self, count: usize) -> Crowd {
        let proxy = self.lab.pod().socket(Family::Ipv4, 8000);
        Crowd::open(self.lab.client().netns(), proxy, count)
    }

    /// Waits until a metric has a value; the admin endpoint answers in time
    /// whatever else happens.
    #[track_caller]
    fn await_metric(&self, name: &str, value: f64) {
        let admin = self.lab.pod().socket(Family::Ipv4, 9090);
        let metric = || {
            self.lab
                .client()
                .get(admin, "/metrics")
                .unwrap()
                .sample(name)
        };
        eventually(PATIENCE, || match metric() {
            Some(now) if now == value => Ok(()),
            now => Err(format!("{name} is {now:?} and not {value}")),
        });
    }
}

fn nine_thousand_idle_connections() -> TestResult {
    let scene = Scene::start(|command| command)?;
    let process = scene.proxy.process();
    // What the first connections bring in for good.
    drop(scene.crowd(500));
    scene.await_metric(OPEN, 0.0);
    let (before, files) = (process.resident()?, process.open_files()?);
    let mut resident = Vec::new();
    for _ in 0..2 {
        let start = Instant::now();
        let crowd = scene.crowd(CONNECTIONS);
        println!(
            "{CONNECTIONS} connections in {} ms",
            start.elapsed().as_millis()
        );
        scene.await_metric(OPEN, 9000.0);
        let idle = process.resident()?;
        // What a connection has carried leaves nothing behind in it.
        crowd.speak();
        let spoken = process.resident()?;
        for now in [idle, spoken] {
            let each = (now - before) / CONNECTIONS as u64;
            println!("{each} bytes each");
            assert!(each < PER_CONNECTION, "{each} bytes per connection");
        }
        // All this time the name was asked for, and nobody noticed.
        crowd.speak();
        drop(crowd);
        scene.await_metric(OPEN, 0.0);
        eventually(PATIENCE, || match process.open_files() {
            Ok(open) if open <= files => Ok(()),
            other => Err(format!("{other:?} instead of {files}")),
        });
        resident.push(spoken);
    }
    // A second time costs no more than the first.
    let grown = resident[1].saturating_sub(resident[0]);
    assert!(grown < (resident[0] - before) / 10, "{grown} bytes more");
    let _ = scene.proxy.stop()?.expect(0);
    Ok(())
}

fn nine_thousand_are_not_disturbed_by_a_reload_and_cut_off_at_the_end() -> TestResult {
    let mut scene = Scene::start(|command| command.env("EGRESS_DRAIN_SECONDS", "1"))?;
    let crowd = scene.crowd(CONNECTIONS);
    crowd.speak();
    // Their own port goes, and another comes.
    scene.volume.update(&[("list", "8001 echo.test 7")])?;
    scene.await_metric("egress_config_reloads_total", 1.0);
    let proxy = scene.lab.pod().socket(Family::Ipv4, 8001);
    let client = scene.lab.client().netns();
    Crowd::open(client, proxy, 10).speak();
    crowd.speak();
    let start = Instant::now();
    scene.proxy.process().signal(Signal::SIGTERM)?;
    crowd.await_end();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(8),
        "{took:?}"
    );
    let _ = scene.proxy.stop()?.expect(0);
    Ok(())
}
