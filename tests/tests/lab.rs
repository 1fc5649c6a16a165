//! The lab behaves as a real cluster before any egress router runs in it, and
//! leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests end at the first surprise, and helpers answer on stdout"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, SocketAddr},
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use egress_lab::{
    Answer, Capability, ClientError, Cni, Command, Family, Forwarding, Host, Lab, MacvlanMode,
    NetNs, Node, Pod, Protocol, Route, Server, TcpClient, address,
    harness::{self, TestResult, libtest_mimic::Trial},
    trials,
};
use ipnet::IpNet;
use nix::{errno::Errno, sys::signal::Signal};

/// Set for a copy of this program that plays a helper: the value says which.
const ROLE: &str = "EGRESS_LAB_TEST_ROLE";

/// A program of the project, to see that it is built and found.
const ROUTER: &str = "egress-router-init";

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
const PORT: u16 = 8080;

fn main() -> ExitCode {
    match env::var(ROLE).as_deref() {
        Ok("report") => report(),
        Ok("hang") => hang(),
        Ok("lab and hang") => lab_and_hang(),
        Ok("labs come and go") => labs_come_and_go(),
        Ok(other) => panic!("unknown role {other}"),
        Err(_) => {
            let mut tests = trials![
                labs_do_not_see_each_other,
                macvlan_reaches_outside_with_its_own_address,
                pods_can_be_added_later,
                nobody_answers_for_a_free_address,
                resolver_answers_as_scripted,
                server_remembers_and_stops,
                refusals_are_told_apart,
                snapshot_shows_every_change,
                snapshots_of_equal_labs_are_equal,
                program_is_built_and_found,
                program_gets_environment_and_resolv_conf,
                program_is_confined,
                program_keeps_capabilities_as_another_user,
                program_has_its_own_pids,
                program_in_a_user_namespace,
                program_is_signalled_and_awaited,
                program_is_killed_at_its_deadline_and_on_drop,
                nothing_is_left_after_drop,
                nothing_is_left_after_kill,
            ];
            tests.extend(cluster_matrix());
            harness::run(&[ROUTER], tests)
        }
    }
}

// --- the cluster ---

/// One test per CNI style, families and rp_filter.
fn cluster_matrix() -> Vec<Trial> {
    let mut tests = Vec::new();
    for cni in Cni::ALL {
        for (label, families) in [
            ("v4", &[Family::Ipv4][..]),
            ("v6", &[Family::Ipv6]),
            ("dual", &[Family::Ipv4, Family::Ipv6]),
        ] {
            for rp_filter in [0, 1, 2] {
                let name = format!("cluster::{cni}::{label}::rp_filter_{rp_filter}");
                tests.push(Trial::test(name.replace(' ', "_"), move || {
                    cluster_works(cni, families, rp_filter)
                }));
            }
        }
    }
    tests
}

fn cluster_works(cni: Cni, families: &[Family], rp_filter: u8) -> TestResult {
    let mut lab = Lab::builder()
        .cni(cni)
        .families(families)
        .rp_filter(rp_filter)
        .build()?;
    let ports = PROTOCOLS.map(|protocol| (protocol, PORT));
    let backend = lab.router_pod().clone();
    let _pod_server = backend.serve(&ports)?;
    let _node_server = lab.node(Node::One).serve(&ports)?;
    let _outside_server = lab.outside(0).serve(&ports)?;
    let service = lab.add_service(&backend, &ports)?;
    lab.resolver().answer(
        "db.example.com",
        30,
        Answer::Addresses(vec!["198.51.100.7".parse()?, "2001:db8::7".parse()?]),
    );

    for &family in families {
        let to_service = SocketAddr::new(service.address(family), PORT);
        let to_pod = backend.socket(family, PORT);
        let to_node = lab.node(Node::One).socket(family, PORT);
        let to_outside = lab.outside(0).socket(family, PORT);
        for protocol in PROTOCOLS {
            let ask = |from: &Host, to: SocketAddr| {
                from.ask(protocol, to, "hello").map(|seen| {
                    assert_eq!(seen.payload, "hello");
                    seen.client.ip()
                })
            };
            for node in Node::ALL {
                let client = lab.client(node);
                let own = client.address(family);
                // Between pods nobody translates.
                assert_eq!(
                    ask(client, to_pod)?,
                    own,
                    "{protocol} pod to pod from {node:?}"
                );
                // Nor for a service, except where the answer would take a
                // short cut over the bridge.
                let bridged = node == Node::One && cni != Cni::LinkLocalGateway;
                let source = if bridged {
                    cni.gateway(node, family)
                } else {
                    own
                };
                assert_eq!(
                    ask(client, to_service)?,
                    source,
                    "{protocol} service, {node:?}"
                );
                // Outside sees the pod's node.
                let at_node = lab.node(node).address(family);
                assert_eq!(
                    ask(client, to_outside)?,
                    at_node,
                    "{protocol} outside, {node:?}"
                );
                // So does another node; its own sees the pod.
                let source = if node == Node::One { own } else { at_node };
                assert_eq!(
                    ask(client, to_node)?,
                    source,
                    "{protocol} pod to node, {node:?}"
                );
                ask(lab.node(node), to_pod)?;
                ask(lab.node(node), to_service)?;
                let answer = client.lookup(
                    lab.resolver_address(family),
                    protocol,
                    "db.example.com",
                    family,
                )?;
                assert_eq!(answer.len(), 1);
            }
            let lan_host = lab.lan_host();
            assert_eq!(ask(lan_host, to_outside)?, lan_host.address(family));
        }
        lab.client(Node::One).ping(lab.outside(0).address(family))?;
        lab.node(Node::Two).ping(backend.address(family))?;
        // The world has no route to pods.
        assert!(try_briefly(lab.outside(0), to_pod).is_err());
    }
    Ok(())
}

/// Linux takes the ICMPv6 answer "no route" for a passing trouble and goes on
/// trying, so that silence is waited for.
fn try_briefly(from: &Host, to: SocketAddr) -> Result<TcpClient, ClientError> {
    from.netns()
        .run(|| TcpClient::connect(to, Duration::from_millis(100)))
}

fn labs_do_not_see_each_other() -> TestResult {
    let labs = [Lab::builder().build()?, Lab::builder().build()?];
    let servers: Vec<Server> = labs
        .iter()
        .map(|lab| lab.outside(0).serve(&[(Protocol::Tcp, PORT)]))
        .collect::<Result<_, _>>()?;
    let to = labs[0].outside(0).socket(Family::Ipv4, PORT);
    thread::scope(|scope| {
        for (number, lab) in labs.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..20 {
                    let payload = format!("lab {number} turn {turn}");
                    let seen = lab.client(Node::One).tcp(to, &payload).unwrap();
                    assert_eq!(seen.payload, payload);
                }
            });
        }
    });
    for (number, server) in servers.iter().enumerate() {
        let seen = server.seen();
        assert_eq!(seen.len(), 20);
        assert!(
            seen.iter()
                .all(|seen| seen.payload.starts_with(&format!("lab {number} ")))
        );
    }
    Ok(())
}

fn macvlan_reaches_outside_with_its_own_address() -> TestResult {
    let lab = Lab::builder()
        .macvlan("macvlan0", MacvlanMode::Private)
        .build()?;
    let _server = lab.outside(0).serve(&[(Protocol::Tcp, PORT)])?;
    let router = lab.router_pod().netns();
    router.set_up("macvlan0")?;
    for family in Family::ALL {
        let lan = address::lan(family);
        let source = address::source(family);
        router.add_address("macvlan0", IpNet::new(source, lan.prefix_len())?)?;
        let outside = Route::to(address::outside(family)).via(address::gateway(family));
        router.add_route(&outside.dev("macvlan0"))?;
    }
    router.await_carrier()?;
    for family in Family::ALL {
        let seen = lab
            .router_pod()
            .tcp(lab.outside(0).socket(family, PORT), "hi")?;
        assert_eq!(seen.client.ip(), address::source(family));
        let mac = router.mac_address("macvlan0")?;
        assert_eq!(
            lab.gateway().netns().neighbour(address::source(family))?,
            Some(mac)
        );
    }
    Ok(())
}

fn pods_can_be_added_later() -> TestResult {
    let mut lab = Lab::builder().pod_forwarding(Forwarding::On).build()?;
    let pod: Pod = lab.add_pod("late", Node::Two)?;
    assert_eq!(pod.node(), Node::Two);
    assert_eq!(pod.netns().read_sysctl("net/ipv4/ip_forward")?, "1");
    assert_eq!(
        pod.netns().read_sysctl("net/ipv6/conf/eth0/forwarding")?,
        "1"
    );
    let squatter = lab.add_lan_host("squatter", &[address::source(Family::Ipv4)])?;
    let server = squatter.serve(&[(Protocol::Udp, PORT)])?;
    let seen = pod.udp(SocketAddr::new(address::source(Family::Ipv4), PORT), "hi")?;
    assert_eq!(seen.client.ip(), lab.node(Node::Two).address(Family::Ipv4));
    assert_eq!(server.seen(), [seen]);
    Ok(())
}

fn nobody_answers_for_a_free_address() -> TestResult {
    let lab = Lab::builder().build()?;
    for family in Family::ALL {
        let error = lab.gateway().ping(address::source(family)).unwrap_err();
        assert!(
            matches!(error, ClientError::TimedOut | ClientError::Unreachable(_)),
            "{error:?}"
        );
    }
    Ok(())
}

fn resolver_answers_as_scripted() -> TestResult {
    let lab = Lab::builder().build()?;
    let client = lab.client(Node::One);
    let server = lab.resolver_address(Family::Ipv4);
    let ask = |name: &str| client.lookup(server, Protocol::Udp, name, Family::Ipv4);
    let [one, two]: [IpAddr; 2] = ["192.0.2.1".parse()?, "192.0.2.2".parse()?];
    let script = lab.resolver();

    assert!(
        ask("absent.test")
            .unwrap_err()
            .to_string()
            .contains("Non-Existent")
    );
    script.answer("a.test", 60, Answer::Addresses(vec![one, two]));
    assert_eq!(ask("A.TEST")?, [one, two]);
    script.answer(
        "turns.test",
        0,
        Answer::Rotating(vec![vec![one], vec![two]]),
    );
    assert_eq!(
        [ask("turns.test")?, ask("turns.test")?, ask("turns.test")?],
        [[one], [two], [one]]
    );
    script.answer("alias.test", 60, Answer::Alias("a.test".to_owned()));
    assert_eq!(ask("alias.test")?, [one, two]);
    script.answer(
        "1.2.0.192.in-addr.arpa",
        60,
        Answer::Pointer("a.test".to_owned()),
    );
    assert_eq!(ask("1.2.0.192.in-addr.arpa")?, [] as [IpAddr; 0]);
    script.answer("broken.test", 0, Answer::Failure);
    assert!(
        ask("broken.test")
            .unwrap_err()
            .to_string()
            .contains("Failure")
    );
    script.answer("mute.test", 0, Answer::Silence);
    assert!(matches!(ask("mute.test"), Err(ClientError::TimedOut)));
    script.forget("a.test");
    assert!(ask("a.test").is_err());

    let queries = script.queries();
    let first = queries.first().unwrap();
    assert_eq!(
        (first.name.as_str(), first.kind.as_str()),
        ("absent.test", "A")
    );
    assert_eq!(first.protocol, Protocol::Udp);
    assert_eq!(first.client.ip(), client.address(Family::Ipv4));
    Ok(())
}

fn server_remembers_and_stops() -> TestResult {
    let lab = Lab::builder().build()?;
    let server = lab.outside(1).serve(&[(Protocol::Tcp, PORT)])?;
    let to = lab.outside(1).socket(Family::Ipv6, PORT);
    let host = lab.lan_host();
    let mut client = host
        .netns()
        .run(|| TcpClient::connect(to, Duration::from_secs(1)))?;
    let seen = [client.ask("one")?, client.ask("two")?];
    assert_eq!(seen[0].client, seen[1].client);
    assert_eq!(server.seen(), seen);
    server.stop();
    client.await_end()?;
    assert!(matches!(host.tcp(to, "three"), Err(ClientError::Refused)));
    Ok(())
}

fn refusals_are_told_apart() -> TestResult {
    let lab = Lab::builder().build()?;
    let host = lab.lan_host();
    for family in Family::ALL {
        let closed = lab.outside(0).socket(family, 9);
        assert!(matches!(host.tcp(closed, ""), Err(ClientError::Refused)));
        assert!(matches!(host.udp(closed, ""), Err(ClientError::Refused)));
    }
    let unknown = lab.client(Node::One).socket(Family::Ipv4, PORT);
    assert!(matches!(
        host.tcp(unknown, ""),
        Err(ClientError::Unreachable(Errno::ENETUNREACH))
    ));
    let unknown = lab.client(Node::One).socket(Family::Ipv6, PORT);
    assert!(matches!(
        try_briefly(host, unknown),
        Err(ClientError::TimedOut)
    ));
    let unused = SocketAddr::new(address::source(Family::Ipv4), PORT);
    assert!(matches!(
        try_briefly(host, unused),
        Err(ClientError::TimedOut)
    ));
    Ok(())
}

// --- snapshots ---

fn snapshot_shows_every_change() -> TestResult {
    let lab = Lab::builder()
        .macvlan("macvlan0", MacvlanMode::Bridge)
        .build()?;
    let pod = lab.router_pod();
    let netns = pod.netns();
    let before = pod.snapshot()?;
    before.assert_same(&pod.snapshot()?);

    let address = IpNet::new(address::source(Family::Ipv4), 32)?;
    let route = Route::to(address::outside(Family::Ipv4))
        .dev("macvlan0")
        .table(77)
        .metric(5);
    netns.set_up("macvlan0")?;
    netns.await_carrier()?;
    netns.add_address("macvlan0", address)?;
    netns.add_route(&route)?;
    netns.sysctl(&[("net/ipv4/conf/macvlan0/arp_ignore", "1")])?;
    let difference = before.difference(&pod.snapshot()?);
    for part in [
        "- link macvlan0 down",
        "+ link macvlan0 up",
        "+ address macvlan0 192.168.12.99/32",
        "+ route Inet table 77 Unicast 203.0.113.0/24 metric 5 dev macvlan0",
        "+ sysctl net/ipv4/conf/macvlan0/arp_ignore = 1",
    ] {
        assert!(difference.contains(part), "no {part:?} in\n{difference}");
    }

    netns.delete_route(&route)?;
    netns.delete_address("macvlan0", address)?;
    netns.sysctl(&[("net/ipv4/conf/macvlan0/arp_ignore", "0")])?;
    netns.set_down("macvlan0")?;
    before.assert_same(&pod.snapshot()?);

    // Translation on a node: rules show, what they counted does not.
    let node = lab.node(Node::One);
    let before = node.snapshot()?;
    assert!(
        before
            .lines("nft")
            .any(|line| line.contains("lab-services postrouting"))
    );
    assert!(
        lab.client(Node::One)
            .lookup(
                lab.resolver_address(Family::Ipv4),
                Protocol::Udp,
                "x.test",
                Family::Ipv4
            )
            .is_err()
    );
    before.assert_same(&node.snapshot()?);
    let mut lab = lab;
    let backend = lab.client(Node::Two).clone();
    lab.add_service(&backend, &[(Protocol::Tcp, PORT)])?;
    let after = lab.node(Node::One).snapshot()?;
    assert!(
        before
            .difference(&after)
            .contains("+ nft Inet rule lab-services services")
    );
    Ok(())
}

fn snapshots_of_equal_labs_are_equal() -> TestResult {
    for cni in Cni::ALL {
        let states = [
            Lab::builder().cni(cni).build()?,
            Lab::builder().cni(cni).build()?,
        ]
        .map(|lab| [lab.router_pod().snapshot(), lab.node(Node::One).snapshot()]);
        let [[pod_a, node_a], [pod_b, node_b]] = states;
        pod_a?.assert_same(&pod_b?);
        node_a?.assert_same(&node_b?);
    }
    Ok(())
}

// --- programs ---

/// This program, playing a helper.
fn helper(host: &Host, role: &str) -> Command {
    host.command(env::current_exe().unwrap()).env(ROLE, role)
}

/// Tells what a program sees of itself, one fact per line.
fn report() -> ExitCode {
    for (name, value) in env::vars() {
        println!("env {name}={value}");
    }
    for line in fs::read_to_string("/etc/resolv.conf")
        .unwrap_or_default()
        .lines()
    {
        println!("resolv.conf {line}");
    }
    for line in fs::read_to_string("/proc/self/status").unwrap().lines() {
        println!(
            "status {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    let sysctl = fs::write("/proc/sys/net/ipv4/conf/all/arp_notify", "1");
    println!("sysctl {:?}", sysctl.map_err(|error| error.kind()));
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    println!(
        "users {}",
        uid_map.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    let namespace = fs::read_link("/proc/self/ns/user").unwrap();
    println!("user namespace {}", namespace.display());
    println!("process {}", std::process::id());
    ExitCode::from(3)
}

/// Waits until it is killed; SIGTERM does that too.
fn hang() -> ExitCode {
    println!("hanging");
    loop {
        thread::park();
    }
}

fn report_of(command: Command) -> Result<Vec<String>, egress_lab::LabError> {
    let output = command.run()?.expect(3);
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

fn has(lines: &[String], wanted: &str) -> bool {
    lines.iter().any(|line| line == wanted)
}

fn program_is_built_and_found() -> TestResult {
    let lab = Lab::builder().build()?;
    let output = lab
        .router_pod()
        .command(egress_lab::program(ROUTER)?)
        .arg("--version")
        .run()?;
    assert!(output.expect(0).stdout.starts_with(ROUTER));
    Ok(())
}

fn program_gets_environment_and_resolv_conf() -> TestResult {
    let lab = Lab::builder().build()?;
    let lines =
        report_of(helper(lab.router_pod(), "report").env("EGRESS_GATEWAY", "192.168.12.1"))?;
    assert!(has(&lines, "env EGRESS_GATEWAY=192.168.12.1"), "{lines:#?}");
    assert!(
        has(&lines, "env KUBERNETES_SERVICE_HOST=10.96.0.1"),
        "{lines:#?}"
    );
    assert!(
        has(&lines, "resolv.conf nameserver 10.96.0.10"),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("env PATH=")),
        "{lines:#?}"
    );
    // Root of the lab may write sysctls of its namespaces, and its pods' only.
    assert!(has(&lines, "sysctl Ok(())"), "{lines:#?}");
    let notify = "net/ipv4/conf/all/arp_notify";
    assert_eq!(lab.router_pod().netns().read_sysctl(notify)?, "1");
    assert_eq!(lab.client(Node::One).netns().read_sysctl(notify)?, "0");
    Ok(())
}

fn program_is_confined() -> TestResult {
    let lab = Lab::builder().build()?;
    let lines = report_of(
        helper(lab.router_pod(), "report")
            .capabilities(&[Capability::NET_ADMIN, Capability::NET_RAW])
            .read_only_proc_sys(),
    )?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            has(&lines, &format!("status {set}: 0000000000003000")),
            "{set}: {lines:#?}"
        );
    }
    assert!(has(&lines, "sysctl Err(ReadOnlyFilesystem)"), "{lines:#?}");
    Ok(())
}

fn program_keeps_capabilities_as_another_user() -> TestResult {
    if fs::read_to_string("/proc/self/uid_map")?
        .split_whitespace()
        .nth(2)
        == Some("1")
    {
        // A user namespace of the unprivileged has no other user.
        return Ok(());
    }
    let lab = Lab::builder().build()?;
    let lines = report_of(
        helper(lab.router_pod(), "report")
            .uid(65532)
            .capabilities(&[Capability::NET_ADMIN]),
    )?;
    assert!(
        has(&lines, "status Uid: 65532 65532 65532 65532"),
        "{lines:#?}"
    );
    assert!(has(&lines, "status CapEff: 0000000000001000"), "{lines:#?}");
    let lines = report_of(
        helper(lab.router_pod(), "report")
            .uid(65532)
            .capabilities(&[]),
    )?;
    assert!(has(&lines, "status CapEff: 0000000000000000"), "{lines:#?}");
    Ok(())
}

fn program_has_its_own_pids() -> TestResult {
    let lab = Lab::builder().build()?;
    let lines = report_of(
        helper(lab.router_pod(), "report")
            .own_pid_namespace()
            .read_only_proc_sys(),
    )?;
    assert!(has(&lines, "process 1"), "{lines:#?}");
    assert!(has(&lines, "status Pid: 1"), "{lines:#?}");
    assert!(has(&lines, "sysctl Err(ReadOnlyFilesystem)"), "{lines:#?}");
    Ok(())
}

fn program_in_a_user_namespace() -> TestResult {
    let lab = Lab::builder().router_in_user_namespace().build()?;
    let ours = fs::read_link("/proc/self/ns/user")?;
    let lines = report_of(helper(lab.router_pod(), "report"))?;
    assert!(
        !has(&lines, &format!("user namespace {}", ours.display())),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("users 0 0 ")),
        "{lines:#?}"
    );
    // It owns its network namespace.
    assert!(has(&lines, "sysctl Ok(())"), "{lines:#?}");
    let _server = lab.client(Node::Two).serve(&[(Protocol::Tcp, PORT)])?;
    lab.router_pod()
        .tcp(lab.client(Node::Two).socket(Family::Ipv4, PORT), "hi")?;
    Ok(())
}

fn program_is_signalled_and_awaited() -> TestResult {
    let netns = NetNs::create("alone")?;
    let program = env::current_exe()?;
    let process = Command::new(&netns, &program).env(ROLE, "hang").spawn()?;
    process.await_stdout("hanging", Duration::from_secs(5))?;
    assert!(process.is_running());
    process.signal(Signal::SIGTERM)?;
    let output = process.wait()?;
    assert_eq!(output.code, 128 + Signal::SIGTERM as i32);
    assert_eq!(output.stdout, "hanging\n");

    let process = Command::new(&netns, &program).env(ROLE, "report").spawn()?;
    let error = process
        .await_stderr("never", Duration::from_secs(5))
        .unwrap_err();
    assert!(error.to_string().contains("it ended"), "{error}");

    let error = Command::new(&netns, "/nowhere").run().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
    Ok(())
}

fn program_is_killed_at_its_deadline_and_on_drop() -> TestResult {
    let netns = NetNs::create("alone")?;
    let hang = || Command::new(&netns, env::current_exe().unwrap()).env(ROLE, "hang");
    let start = Instant::now();
    let error = hang()
        .deadline(Duration::from_millis(200))
        .run()
        .unwrap_err();
    assert!(error.to_string().contains("not within 200ms"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));

    let process = hang().spawn()?;
    let entry = format!("/proc/{}", process.pid());
    assert!(fs::exists(&entry)?);
    drop(process);
    assert!(!fs::exists(&entry)?);
    Ok(())
}

// --- what stays behind ---

/// Runs this program as a helper of its own, outside of any lab.
fn stand_alone(role: &str) -> std::process::Command {
    let mut command = std::process::Command::new(env::current_exe().unwrap());
    command
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// Builds and drops labs, each with a server and a program running.
fn labs_come_and_go() -> ExitCode {
    let held = || {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let children = fs::read_dir("/proc/self/task")
            .unwrap()
            // A thread may go away while it is looked at.
            .map(|task| fs::read_to_string(task.unwrap().path().join("children")))
            .map(Result::unwrap_or_default)
            .collect::<String>();
        (count("/proc/self/fd"), count("/proc/self/task"), children)
    };
    let idle = held();
    for _ in 0..3 {
        let lab = Lab::builder().router_in_user_namespace().build().unwrap();
        let server = lab.outside(0).serve(&[(Protocol::Tcp, PORT)]).unwrap();
        let process = helper(lab.router_pod(), "hang").spawn().unwrap();
        assert_ne!(held(), idle);
        drop((process, server, lab));
        // A thread that was joined may still be on its way out of the kernel.
        let deadline = Instant::now() + Duration::from_secs(5);
        while held().1 > idle.1 && Instant::now() < deadline {
            thread::yield_now();
        }
        // The first time the runtime's own descriptors come to stay.
        println!("{:?}", held());
    }
    ExitCode::SUCCESS
}

fn nothing_is_left_after_drop() -> TestResult {
    let output = stand_alone("labs come and go").output()?;
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout)?;
    let [first, second, third] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert_eq!(
        first, second,
        "open files, threads and children after each lab"
    );
    assert_eq!(
        second, third,
        "open files, threads and children after each lab"
    );
    assert!(
        first.ends_with(", 1, \"\")"),
        "one thread, no child: {first}"
    );
    Ok(())
}

fn lab_and_hang() -> ExitCode {
    let lab = Lab::builder().build().unwrap();
    // Its output is this process's, so the pipe ends with the last of both.
    let programs: Vec<_> = [lab.router_pod(), lab.client(Node::Two)]
        .map(|pod| {
            helper(pod, "hang")
                .inherit_output()
                .own_pid_namespace()
                .spawn()
                .unwrap()
        })
        .into();
    println!("{} programs run", programs.len());
    hang()
}

fn nothing_is_left_after_kill() -> TestResult {
    let mut process = stand_alone("lab and hang").spawn()?;
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut lines = Vec::new();
    while lines.iter().filter(|line| *line == "hanging\n").count() < 3 {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line)?, 0, "{lines:?}");
        lines.push(line);
    }
    process.kill()?;
    process.wait()?;
    // Ends only when no process has the other end any more.
    let (done, end) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(output.read_to_end(&mut Vec::new())));
    end.recv_timeout(Duration::from_secs(5))??;
    Ok(())
}
