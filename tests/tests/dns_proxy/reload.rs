//! Another list while connections are open.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use egress_lab::{
    ClientError, Server, TcpClient, Volume, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use nix::sys::signal::Signal;

use crate::scene::{LIST, PATIENCE, Scene, answer, logged, network, parsed, serve};

const RELOADS: &str = "egress_config_reloads_total";
const FAILURES: &str = "egress_config_reload_failures_total";

/// A proxy whose list is a mounted `ConfigMap`.
struct Mounted {
    scene: Scene,
    volume: Volume,
    _server: Server,
}

impl Mounted {
    fn start(list: &str, existing: Option<&str>) -> Result<Self, Failed> {
        let volume = Volume::new(&[("list", list)])?;
        let lab = network()?;
        for (name, address) in [
            ("a.test", "198.51.100.1"),
            ("b.test", "198.51.100.2"),
            ("c.test", "198.51.100.3"),
        ] {
            answer(&lab, name, 300, &[address]);
        }
        let server = serve(&lab, &["198.51.100.1", "198.51.100.2", "198.51.100.3"], 80)?;
        let path = volume.file("list");
        let scene = Scene::start_with(lab, "", |command| {
            let command = command
                .env_remove(LIST)
                .env(format!("{LIST}_FILE"), path.to_string_lossy());
            match existing {
                Some(existing) => command.env("EGRESS_RELOAD_EXISTING", existing),
                None => command,
            }
        })?;
        Ok(Self {
            scene,
            volume,
            _server: server,
        })
    }

    /// Swaps the list, and waits until so many have been put in force.
    fn swap(&mut self, list: &str, reloads: f64) -> TestResult {
        self.volume.update(&[("list", list)])?;
        self.scene.await_metric(RELOADS, reloads);
        Ok(())
    }

    /// Swaps in a list that cannot be put in force.
    fn swap_bad(&mut self, list: &str, failures: f64) -> TestResult {
        self.volume.update(&[("list", list)])?;
        self.scene.await_metric(FAILURES, failures);
        Ok(())
    }
}

fn refuses(scene: &Scene, port: u16) {
    let answer = scene.ask(port);
    assert!(
        matches!(answer, Err(ClientError::Refused)),
        "{port}: {answer:?}"
    );
}

pub(crate) fn listeners_come_and_go() -> TestResult {
    let mut mounted = Mounted::start("8000 a.test 80\n8001 b.test 80\n5353/udp b.test 80", None)?;
    let (mut kept, mut removed, mut changed) = {
        let scene = &mounted.scene;
        (
            scene.client(8000)?,
            scene.client(8001)?,
            scene.client(8000)?,
        )
    };
    for client in [&mut kept, &mut removed, &mut changed] {
        client.ask("before")?;
    }
    refuses(&mounted.scene, 8002);
    let datagrams = mounted.scene.udp(5353)?;
    datagrams.ask("before")?;

    // Whoever comes to a port that stays is let in all the time.
    let stop = AtomicBool::new(false);
    let to = mounted.scene.address(8000);
    let netns = mounted.scene.lab.client().netns().clone();
    thread::scope(|scope| {
        let coming = scope.spawn(|| {
            netns.run(|| {
                let mut served = 0;
                while !stop.load(Ordering::Relaxed) {
                    TcpClient::connect(to, PATIENCE)?.ask("during")?;
                    served += 1;
                }
                Ok::<_, ClientError>(served)
            })
        });
        let swaps = (|| {
            mounted.swap(
                "# moved\n8002 c.test 80\n8000 a.test 80\n8000/udp c.test 80",
                1.0,
            )?;
            refuses(&mounted.scene, 8001);
            assert_eq!(
                mounted.scene.answered_by(8002),
                parsed(&["198.51.100.3"])[0]
            );
            let seen = mounted.scene.udp(8000)?.ask("new")?;
            assert_eq!(seen.server.ip(), parsed(&["198.51.100.3"])[0]);
            mounted.swap("8001 b.test 80\n8000 a.test 80", 2.0)?;
            refuses(&mounted.scene, 8002);
            assert_eq!(
                mounted.scene.answered_by(8001),
                parsed(&["198.51.100.2"])[0]
            );
            // A port that leads elsewhere does so for who comes later, without
            // a break: the name was asked for before.
            mounted.swap("8001 b.test 80\n8000 c.test 80", 3.0)?;
            assert_eq!(
                mounted.scene.answered_by(8000),
                parsed(&["198.51.100.3"])[0]
            );
            Ok::<_, Failed>(())
        })();
        stop.store(true, Ordering::Relaxed);
        let served = coming.join().unwrap();
        swaps?;
        assert!(served? > 0);
        Ok::<_, Failed>(())
    })?;
    // A port that is gone has no more datagrams.
    assert!(datagrams.ask("after").is_err());

    for (client, by) in [
        (&mut kept, "198.51.100.1"),
        (&mut removed, "198.51.100.2"),
        (&mut changed, "198.51.100.1"),
    ] {
        assert_eq!(client.ask("after")?.server.ip(), parsed(&[by])[0]);
    }
    drop((kept, removed, changed));
    let stderr = mounted.scene.stop()?.stderr;
    let told = logged(&stderr, "the list was reloaded");
    let counts: Vec<_> = told
        .iter()
        .map(|line| ["added", "changed", "removed", "kept", "closed"].map(|key| line[key].as_u64()))
        .collect();
    let expected = [[2, 0, 2, 1, 1], [1, 0, 2, 1, 1], [0, 1, 0, 1, 0]];
    assert_eq!(counts, expected.map(|line| line.map(Some)), "{stderr}");
    Ok(())
}

pub(crate) fn a_bad_list_changes_nothing() -> TestResult {
    let good = "8000 a.test 80\n8001 b.test 80";
    let mut mounted = Mounted::start(good, None)?;
    let mut open = mounted.scene.client(8000)?;
    let bad = "8000 c.test 80\nnonsense\n8002 a.test 80\n8003 a.test 0\n8002 b.test 80";
    mounted.swap_bad(bad, 1.0)?;
    let scene = &mounted.scene;
    assert_eq!(scene.answered_by(8000), parsed(&["198.51.100.1"])[0]);
    assert_eq!(scene.answered_by(8001), parsed(&["198.51.100.2"])[0]);
    refuses(scene, 8002);
    // A port that somebody else has: all or nothing.
    let taken = scene
        .lab
        .pod()
        .netns()
        .run(|| std::net::TcpListener::bind("[::]:8005"))?;
    mounted.swap_bad("8004 a.test 80\n8005 a.test 80\n8000 c.test 80", 2.0)?;
    refuses(&mounted.scene, 8004);
    assert_eq!(
        mounted.scene.answered_by(8000),
        parsed(&["198.51.100.1"])[0]
    );
    assert_eq!(
        mounted.scene.answered_by(8001),
        parsed(&["198.51.100.2"])[0]
    );
    // When it is free, a signal is enough.
    drop(taken);
    mounted.scene.proxy.signal(Signal::SIGHUP)?;
    // Attempts count as reloads, too.
    mounted.scene.await_metric(RELOADS, 3.0);
    mounted.scene.await_metric(FAILURES, 2.0);
    assert_eq!(
        mounted.scene.answered_by(8004),
        parsed(&["198.51.100.1"])[0]
    );
    assert_eq!(
        mounted.scene.answered_by(8000),
        parsed(&["198.51.100.3"])[0]
    );
    refuses(&mounted.scene, 8001);
    open.ask("still here")?;
    assert_eq!(mounted.scene.page("/readyz").status, 200);
    let config: serde_json::Value = serde_json::from_str(&mounted.scene.page("/config").body)?;
    assert_eq!(
        config["mappings"].as_array().map(Vec::len),
        Some(3),
        "{config:#}"
    );
    drop(open);
    let stderr = mounted.scene.stop()?.stderr;
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("\"level\":\"error\""))
        .collect();
    let twice = errors
        .iter()
        .filter(|line| line.contains("the old one stays in force"));
    assert_eq!(twice.count(), 2, "{stderr}");
    for told in [
        "line 2: 'nonsense'",
        "line 4: '8003 a.test 0'",
        "line 5: '8002 b.test 80'",
        "[::]:8005",
    ] {
        assert!(
            errors.iter().any(|line| line.contains(told)),
            "{told} in {stderr}"
        );
    }
    Ok(())
}

pub(crate) fn what_is_forbidden_may_be_closed() -> TestResult {
    let mut mounted = Mounted::start(
        "8000 a.test 80\n8001 b.test 80\n8002 c.test 80",
        Some("close"),
    )?;
    let mut clients = [8000, 8001, 8002].map(|port| mounted.scene.client(port).unwrap());
    for client in &mut clients {
        client.ask("before")?;
    }
    let [kept, removed, changed] = &mut clients;
    mounted.swap("8002 a.test 80\n8000 a.test 80", 1.0)?;
    removed.await_end()?;
    changed.await_end()?;
    kept.ask("after")?;
    let open = "egress_dns_proxy_open_connections{port=\"8000\",protocol=\"tcp\",host=\"a.test\"}";
    assert_eq!(mounted.scene.page("/metrics").sample(open), Some(1.0));
    drop(clients);
    let stderr = mounted.scene.stop()?.stderr;
    let lines = logged(&stderr, "connection");
    let cut: Vec<_> = lines
        .iter()
        .filter(|line| line["end"] == "reload")
        .collect();
    assert_eq!(cut.len(), 2, "{stderr}");
    Ok(())
}

pub(crate) fn a_new_name_is_looked_up() -> TestResult {
    let mut mounted = Mounted::start("8000 a.test 80", None)?;
    // Not there yet: the ports that work go on, and are ready.
    mounted.swap("8000 a.test 80\n8001 late.test 80", 1.0)?;
    let scene = &mounted.scene;
    assert_eq!(scene.page("/readyz").status, 200);
    let answer = scene.ask(8001);
    assert!(matches!(answer, Err(ClientError::Closed)), "{answer:?}");
    scene.answer("late.test", 300, &["198.51.100.2"]);
    eventually(PATIENCE, || scene.ask(8001));
    // Names that nobody needs any more are not asked for any more.
    scene.answer("late.test", 1, &["198.51.100.2"]);
    let resolved = "egress_dns_proxy_name_resolved{host=\"late.test\"}";
    assert_eq!(scene.page("/metrics").sample(resolved), Some(1.0));
    mounted.swap("8000 a.test 80", 2.0)?;
    assert_eq!(mounted.scene.page("/metrics").sample(resolved), None);
    Ok(())
}
