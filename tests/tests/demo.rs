//! The demonstration that the README promises works.
#![allow(clippy::unwrap_used, reason = "tests end at the first surprise")]

use std::process::{Command, Stdio};

#[test]
fn the_demonstration_shows_every_line_at_work_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{complaints}");
    for server in [
        "203.0.113.25:80 saw 192.168.12.99",
        "203.0.113.26:80 saw 192.168.12.99",
        "203.0.113.26:443 saw 192.168.12.99",
        "203.0.113.27:9999 saw 192.168.12.99",
    ] {
        // Two clients by the pod's address and one by its Service.
        assert_eq!(shown.matches(server).count(), 3, "{server} in\n{shown}");
    }
    assert!(shown.contains("The lab is gone."), "{shown}");
}
