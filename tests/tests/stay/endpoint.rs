//! The admin endpoint.

use std::{net::SocketAddr, time::Duration};

use egress_lab::{
    ClientError, Family, Lab, Node, Protocol, TcpClient, address, harness::TestResult,
};

use crate::fixture::{ADMIN, Stayer, legacy};

pub(crate) fn readiness_says_what_it_waits_for() -> TestResult {
    let mut lab = Lab::builder().build()?;
    let source = address::source(Family::Ipv4);
    let holder = lab.add_lan_host("holder", &[source])?;
    let mac = holder.netns().mac_address("eth0")?;
    let config = legacy().with("EGRESS_ADDRESS_PROBE", "60ms");
    let router = Stayer::launch_in(lab, &config)?;

    let page = router.await_page("/readyz", |page| {
        page.body.contains("in use by another host")
    });
    assert_eq!(page.status, 503);
    assert!(
        page.body.contains(&source.to_string()) && page.body.contains(&mac),
        "{page:?}"
    );
    let page = router.page("/healthz");
    assert_eq!((page.status, page.body.as_str()), (200, "ok\n"));

    holder.netns().set_down("eth0")?;
    router.await_page("/readyz", |page| {
        (page.status, page.body.as_str()) == (200, "ready\n")
    });
    Ok(())
}

pub(crate) fn every_metric_is_there_and_counts() -> TestResult {
    let router = Stayer::start(&legacy())?;
    for _ in 0..3 {
        router.traffic();
    }
    assert_eq!(router.answered(), 3 * 4 * 2);
    // From the physical network to a socket of the pod.
    let admin = SocketAddr::new(address::source(Family::Ipv4), ADMIN);
    knock(&router.lab, admin);

    let mapping = |name: &str, port, protocol, target: SocketAddr| {
        format!("{name}{{port=\"{port}\",protocol=\"{protocol}\",target=\"{target}\"}}")
    };
    for family in Family::ALL {
        let target = router.lab.outside(0).socket(family, 53);
        // A question and an answer each.
        router.await_metric(
            &mapping("egress_router_mapping_packets_total", 53, "udp", target),
            6.0,
        );
        let header = match family {
            Family::Ipv4 => 20 + 8,
            Family::Ipv6 => 40 + 8,
        };
        let bytes = router.metric(&mapping(
            "egress_router_mapping_bytes_total",
            53,
            "udp",
            target,
        ));
        assert!(bytes > f64::from(6 * header), "{bytes}");
        let target = router.lab.outside(1).socket(family, 80);
        let packets = router.metric(&mapping(
            "egress_router_mapping_packets_total",
            8080,
            "tcp",
            target,
        ));
        assert!(packets >= 3.0 * 8.0, "{packets}");
        let fallback = router.lab.outside(2).address(family);
        let packets = router.metric(&format!(
            "egress_router_mapping_packets_total{{port=\"any\",protocol=\"any\",target=\"{fallback}\"}}"
        ));
        assert!(packets >= 3.0 * 8.0, "{packets}");
    }
    let all = router.metric("egress_router_packets_total{verdict=\"redirected\"}");
    assert!(all >= 2.0 * (6.0 + 3.0 * 24.0), "{all}");
    assert!(router.metric("egress_router_bytes_total{verdict=\"redirected\"}") > all * 20.0);
    assert!(router.metric("egress_router_packets_total{verdict=\"dropped\"}") >= 1.0);
    assert!(router.metric("egress_router_bytes_total{verdict=\"dropped\"}") >= 40.0);
    for (name, value) in [
        ("egress_router_packets_total{verdict=\"refused\"}", 0.0),
        ("egress_router_bytes_total{verdict=\"refused\"}", 0.0),
        ("egress_router_mappings", 8.0),
        ("egress_router_repairs_total", 0.0),
        ("egress_router_setup_failures_total", 0.0),
        ("egress_router_address_conflicts_total", 0.0),
        (
            "egress_router_gateway_answers{gateway=\"192.168.12.1\"}",
            1.0,
        ),
        ("egress_config_reloads_total", 0.0),
        ("egress_config_reload_failures_total", 0.0),
    ] {
        assert_eq!(router.metric(name), value, "{name}");
    }
    for name in [
        "egress_config_last_reload_success_timestamp_seconds",
        "process_start_time_seconds",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(router.metric(name) > 0.0, "{name}");
    }
    Ok(())
}

pub(crate) fn configuration_is_shown() -> TestResult {
    let router = Stayer::start(&legacy())?;
    let page = router.page("/config");
    assert_eq!(page.status, 200);
    let config: serde_json::Value = serde_json::from_str(&page.body)?;
    assert_eq!(config["mode"], "legacy");
    assert_eq!(config["legs"][0]["source"], "192.168.12.99/24");
    assert_eq!(
        config["redirects"]["mappings"].as_array().map(Vec::len),
        Some(6)
    );
    assert_eq!(
        config["redirects"]["fallbacks"].as_array().map(Vec::len),
        Some(2)
    );
    Ok(())
}

pub(crate) fn only_the_pod_network_reaches_it() -> TestResult {
    let router = Stayer::start(&legacy())?;
    let lab = &router.lab;
    for family in Family::ALL {
        let own = lab.router_pod().socket(family, ADMIN);
        // In spite of the fallback.
        for host in [
            &**lab.client(Node::One),
            lab.client(Node::Two),
            lab.node(Node::One),
        ] {
            assert_eq!(
                host.get(own, "/healthz")?.status,
                200,
                "{} {family}",
                host.name()
            );
        }
        let source = SocketAddr::new(address::source(family), ADMIN);
        for host in [
            lab.lan_host(),
            lab.gateway(),
            lab.outside(0),
            lab.client(Node::Two),
        ] {
            let answer = host
                .netns()
                .run(|| TcpClient::connect(source, Duration::from_millis(150)));
            assert!(
                matches!(answer, Err(ClientError::TimedOut)),
                "{} {family}: {answer:?}",
                host.name()
            );
        }
    }
    // The other ports are redirected all the while.
    assert!(
        router
            .client()
            .ask(
                Protocol::Tcp,
                lab.router_pod().socket(Family::Ipv4, 4711),
                "x"
            )
            .is_ok()
    );
    Ok(())
}

fn knock(lab: &Lab, to: SocketAddr) {
    let answer = lab
        .lan_host()
        .netns()
        .run(|| TcpClient::connect(to, Duration::from_millis(50)));
    assert!(matches!(answer, Err(ClientError::TimedOut)), "{answer:?}");
}
