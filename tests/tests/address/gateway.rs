//! A gateway that does not answer is told, with the remedy: it may be down for
//! now, so it is no error.

use egress_lab::{Family, Lab, Node, Output, Protocol, RouterConfig, address, harness::TestResult};

/// Port of the LAN's bridge behind which the gateway is.
const PORT: &str = "gateway";

/// The warnings about gateways.
fn told(output: &Output) -> Vec<&str> {
    let lines = output.stderr.lines();
    lines
        .filter(|line| line.contains("does not answer"))
        .collect()
}

pub(crate) fn a_silent_gateway_is_a_warning() -> TestResult {
    for family in Family::ALL {
        let lab = Lab::builder().build()?;
        let _server = lab.outside(0).serve(&[(Protocol::Tcp, 80)])?;
        let pod = lab.router_pod();
        let gateway = address::gateway(family).to_string();
        let config = RouterConfig::new(&[family]);
        lab.lan().set_down(PORT)?;
        // Without and with sockets that were opened for a probe, and again
        // where everything is set up already.
        for probe in ["off", "60ms", "off"] {
            if probe != "off" {
                let _ = config.run_subcommand(pod, "undo")?.expect(0);
            }
            let config = config.clone().with("EGRESS_ADDRESS_PROBE", probe);
            let output = config.run(pod)?.expect(0);
            assert_eq!(told(&output).len(), 1, "{}", output.stderr);
            let text = told(&output).concat();
            let parts = [
                "WARN",
                &format!("EGRESS_GATEWAY: {gateway} does not answer on macvlan0"),
                "VLAN",
                "annotation",
                "EGRESS_MACVLAN_PARENT",
            ];
            for part in parts {
                assert!(text.contains(part), "no {part:?} in {text}");
            }
        }
        let status = config.run_subcommand(pod, "status")?.expect(0).stdout;
        let line = format!("gateway      {gateway} does not answer on macvlan0");
        assert!(status.contains(&line), "{status}");

        lab.lan().set_up(PORT)?;
        lab.lan().await_carrier()?;
        lab.gateway().netns().await_carrier()?;
        let output = config.run(pod)?.expect(0);
        assert_eq!(told(&output), [""; 0]);
        let status = config.run_subcommand(pod, "status")?.expect(0).stdout;
        let mac = lab.gateway().netns().mac_address("lan0")?;
        let line = format!("gateway      {gateway} at {mac}\n");
        assert!(status.contains(&line), "{status}");
        let seen = lab.client(Node::Two).tcp(pod.socket(family, 80), "hello")?;
        assert_eq!(seen.client.ip(), address::source(family));
    }
    Ok(())
}

/// Of two gateways the one is named that is silent.
pub(crate) fn a_wrong_gateway_is_named() -> TestResult {
    let lab = Lab::builder().build()?;
    let [good, wrong] = [
        ("192.168.12.1", "2001:db8:12::1"),
        ("192.168.12.201", "fe80::201"),
    ];
    for (gateways, silent) in [([good.0, wrong.1], wrong.1), ([wrong.0, good.1], wrong.0)] {
        let config = RouterConfig::new(&Family::ALL).with("EGRESS_GATEWAY", gateways.join(" "));
        let output = config.run(lab.router_pod())?.expect(0);
        assert_eq!(told(&output).len(), 1, "{}", output.stderr);
        let text = told(&output).concat();
        assert!(
            text.contains(&format!(" {silent} does not answer")),
            "{text}"
        );
    }
    Ok(())
}
