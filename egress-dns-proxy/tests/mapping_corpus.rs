//! Replays the corpus of the fuzz target: once found, an odd text stays a
//! test.

#[path = "../../fuzz/src/destination_lines.rs"]
#[expect(
    unreachable_pub,
    reason = "it is a part of the fuzz target, read here as a module"
)]
mod checks;

#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[test]
fn destination_lines() {
    replay::replay("destination_lines", checks::destination_lines);
}
