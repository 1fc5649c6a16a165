//! Replays the corpora of the fuzz targets: once found, odd bytes stay a test.

#[path = "../../fuzz/src/client_hello.rs"]
#[expect(
    unreachable_pub,
    reason = "it is a part of the fuzz target, read here as a module"
)]
mod client_hello;
#[path = "../../fuzz/src/rule_lines.rs"]
#[expect(
    unreachable_pub,
    reason = "it is a part of the fuzz target, read here as a module"
)]
mod rule_lines;
#[path = "../../fuzz/src/targets.rs"]
#[expect(
    unreachable_pub,
    reason = "it is a part of the fuzz target, read here as a module"
)]
mod targets;

#[path = "../../fuzz/src/http1.rs"]
#[expect(
    clippy::panic,
    unreachable_pub,
    reason = "it is a part of the fuzz targets, read here as a module"
)]
mod http1;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn rule_lines() {
    replay("rule_lines", rule_lines::rule_lines);
}

#[test]
fn targets() {
    replay("targets", targets::targets);
}

#[test]
fn client_hello() {
    replay("client_hello", client_hello::client_hello);
}

#[test]
fn request_heads() {
    replay("request_heads", http1::request_heads);
}

#[test]
fn response_heads() {
    replay("response_heads", http1::response_heads);
}

#[test]
fn chunked_bodies() {
    replay("chunked_bodies", http1::chunked_bodies);
}
