//! The demonstration that the README promises works.
#![allow(clippy::unwrap_used, reason = "tests end at the first surprise")]

use std::process::{Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn the_demonstration_shows_every_mode_at_work_and_ends() {
    let output = demo(&[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{complaints}");
    for server in [
        "203.0.113.25:80 saw 192.168.12.99 say",
        "203.0.113.26:80 saw 192.168.12.99 say",
        "203.0.113.26:443 saw 192.168.12.99 say",
        "203.0.113.27:9999 saw 192.168.12.99 say",
    ] {
        // Two clients by the pod's address and one by its Service. The proxies
        // reach two of them once more.
        let (redirect, _) = shown.split_once("== http-proxy mode").unwrap();
        assert_eq!(redirect.matches(server).count(), 3, "{server} in\n{shown}");
    }
    for (times, text) in [
        // http-proxy: allowed, denied, a tunnel, and after a reload.
        (
            1,
            "GET http://www.example.com/: 200 \"hello from 203.0.113.25:80\": server 203.0.113.25:80 saw 192.168.12.99\n",
        ),
        (
            1,
            "GET http://internal.example.com/: 403 \"denied by rule 1\"",
        ),
        (
            1,
            "GET http://example.org/: 403 \"denied: no rule matches\"",
        ),
        (
            1,
            "CONNECT api.example.com:443: 200, and in the tunnel server 203.0.113.26:443 saw 192.168.12.99 say",
        ),
        (
            1,
            "GET http://example.org/: 200 \"hello from 203.0.113.27:80\": server 203.0.113.27:80 saw 192.168.12.99\n",
        ),
        (1, "www.example.com:80: allowed by rule 2"),
        (
            1,
            "method=GET host=internal.example.com port=80 decision=denied rule=1 status=403",
        ),
        // dns-proxy: TCP, UDP, and a name that moved.
        (
            1,
            "tcp asked 10.96.0.23:5432: server 203.0.113.26:5432 saw 192.168.12.99 say",
        ),
        (
            1,
            "udp asked 10.96.0.23:514: server 203.0.113.25:514 saw 192.168.12.99 say",
        ),
        (
            1,
            "tcp asked 10.96.0.23:5432: server 203.0.113.27:5432 saw 192.168.12.99 say",
        ),
        // Once in each mode.
        (3, "no answer within the deadline"),
        (3, "the router is gone from this network namespace"),
        (1, "The lab is gone."),
    ] {
        assert_eq!(shown.matches(text).count(), times, "{text} in\n{shown}");
    }
}

#[test]
fn an_unknown_argument_is_refused() {
    let output = demo(&["squid"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "unknown argument squid; write redirect, http-proxy, dns-proxy or --keep\n"
    );
}
