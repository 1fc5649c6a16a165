//! The file: good, bad, swapped, gone.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::Duration,
};

use egress_lab::{
    Family, Host, Lab, Node, Page, Process, Protocol, RouterConfig, Server, eventually,
    harness::TestResult,
};
use nix::sys::signal::Signal;

use crate::list::{List, legacy};
use crate::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(5);
const RELOADS: &str = "egress_config_reloads_total";
const FAILURES: &str = "egress_config_reload_failures_total";
const MAPPINGS: &str = "egress_router_mappings";

struct Scene {
    lab: Lab,
    router: Process,
    _server: Server,
}

impl Scene {
    fn new(config: &RouterConfig) -> Self {
        let lab = Lab::builder().build().unwrap();
        let server = lab.outside(0).serve(&[(Protocol::Tcp, 80)]).unwrap();
        let router = config.command(lab.router_pod()).unwrap().spawn().unwrap();
        router
            .await_stderr("the network is set up", PATIENCE)
            .unwrap();
        Self {
            lab,
            router,
            _server: server,
        }
    }

    fn with_file(file: &Path) -> Self {
        Self::new(&legacy().with("EGRESS_DESTINATION_FILE", file.to_string_lossy()))
    }

    fn page(&self, path: &str) -> Page {
        let admin = self.lab.router_pod().socket(Family::Ipv4, 9090);
        self.client().get(admin, path).unwrap()
    }

    fn client(&self) -> &Host {
        self.lab.client(Node::Two)
    }

    /// Waits until the metrics have these values.
    #[track_caller]
    fn awaits(&self, metrics: &[(&str, f64)]) {
        eventually(PATIENCE, || {
            let page = self.page("/metrics");
            let fit = metrics
                .iter()
                .all(|(name, value)| page.sample(name) == Some(*value));
            if fit { Ok(()) } else { Err(page.body) }
        });
    }

    /// Whether a connection to a port of the router arrives.
    fn leads(&self, port: u16) -> bool {
        Family::ALL.into_iter().all(|family| {
            self.client()
                .tcp(self.lab.router_pod().socket(family, port), "hello")
                .is_ok()
        })
    }
}

/// One mapping of a port to port 80 of the first server.
fn one(port: u16) -> List {
    List::default().with(port, Protocol::Tcp, 0, 80)
}

pub(crate) fn a_bad_file_changes_nothing() -> TestResult {
    let mut volume = Volume::new(one(80).as_str());
    let scene = Scene::with_file(&volume.file());
    let pod = scene.lab.router_pod();
    let shown = scene.page("/config");
    // Addresses that the kernel makes in its own time are no concern here.
    let rules = || {
        pod.snapshot()
            .map(|snapshot| snapshot.without(|line| !line.starts_with("nft ")))
    };
    let before = rules()?;

    volume.update(
        "81 tcp 203.0.113.25\n\
         82 sctp 203.0.113.25\n\
         # a comment\n\
         0 tcp 203.0.113.25\n\
         81 tcp 203.0.113.26\n\
         203.0.113.300\n",
    );
    scene.awaits(&[(RELOADS, 1.0), (FAILURES, 1.0), (MAPPINGS, 2.0)]);
    let log = scene
        .router
        .await_stderr("the old redirects stay in force", PATIENCE)?;
    for line in [2, 4, 5, 6] {
        let place = format!("EGRESS_DESTINATION_FILE line {line}: ");
        assert!(log.contains(&place), "no {place:?} in\n{log}");
    }
    before.assert_same(&rules()?);
    assert_eq!(scene.page("/config"), shown);
    assert_eq!(scene.page("/readyz").status, 200);
    assert!(scene.leads(80) && !scene.leads(81));

    // Nothing at all is not what anybody means either.
    volume.update("");
    scene.awaits(&[(RELOADS, 2.0)]);
    volume.update(one(83).as_str());
    scene.awaits(&[(RELOADS, 3.0), (MAPPINGS, 2.0)]);
    assert!(scene.leads(83) && !scene.leads(80));
    assert_ne!(scene.page("/config"), shown);
    Ok(())
}

pub(crate) fn sighup_reloads() -> TestResult {
    let volume = Volume::new(one(80).as_str());
    let scene = Scene::with_file(&volume.file());
    scene.router.signal(Signal::SIGHUP)?;
    scene.awaits(&[(RELOADS, 1.0), (FAILURES, 0.0)]);
    let log = scene
        .router
        .await_stderr("the redirects were reloaded", PATIENCE)?;
    assert!(
        log.contains("added=0") && log.contains("removed=0"),
        "{log}"
    );
    assert!(scene.leads(80));
    Ok(())
}

pub(crate) fn sighup_reloads_the_environment() -> TestResult {
    let scene = Scene::new(&legacy().with("EGRESS_DESTINATION", one(80).as_str()));
    scene.router.signal(Signal::SIGHUP)?;
    scene.awaits(&[(RELOADS, 1.0), (FAILURES, 0.0), (MAPPINGS, 2.0)]);
    assert!(scene.leads(80));
    Ok(())
}

pub(crate) fn a_file_may_go_and_come_back() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("destination");
    fs::write(&file, one(80).as_str())?;
    let scene = Scene::with_file(&file);
    fs::remove_file(&file)?;
    scene.awaits(&[(RELOADS, 1.0), (FAILURES, 1.0), (MAPPINGS, 2.0)]);
    let log = scene
        .router
        .await_stderr("the old redirects stay in force", PATIENCE)?;
    assert!(log.contains(file.to_str().unwrap()), "{log}");
    assert!(scene.leads(80));
    fs::write(&file, one(81).as_str())?;
    scene.awaits(&[(RELOADS, 2.0), (FAILURES, 1.0)]);
    assert!(scene.leads(81) && !scene.leads(80));
    Ok(())
}

pub(crate) fn an_editors_file_is_read_once_it_is_whole() -> TestResult {
    let folder = tempfile::tempdir()?;
    let [file, new] = ["destination", ".destination.new"].map(|name| folder.path().join(name));
    fs::write(&file, one(80).as_str())?;
    let scene = Scene::with_file(&file);
    let mut writer = File::create(&new)?;
    let text = one(81);
    let (begin, end) = text.as_str().split_at(9);
    writer.write_all(begin.as_bytes())?;
    writer.flush()?;
    writer.write_all(end.as_bytes())?;
    drop(writer);
    fs::rename(&new, &file)?;
    scene.awaits(&[(RELOADS, 1.0), (FAILURES, 0.0)]);
    assert!(scene.leads(81) && !scene.leads(80));
    Ok(())
}
