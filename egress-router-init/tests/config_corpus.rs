//! Replays the corpora of the fuzz targets: once found, an odd text stays a
//! test.

#[path = "../../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "it is the library of the fuzz targets, read here as a module"
)]
mod checks;

#[path = "../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn redirect_lines() {
    replay("redirect_lines", checks::redirect_lines);
}

#[test]
fn list_lines() {
    replay("list_lines", checks::list_lines);
}

#[test]
fn addresses() {
    replay("addresses", checks::addresses);
}

#[test]
fn names() {
    replay("names", checks::names);
}

#[test]
fn environment() {
    replay("environment", checks::environment);
}
