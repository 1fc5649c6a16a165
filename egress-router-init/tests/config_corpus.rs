//! Replays the corpora of the fuzz targets: once found, an odd text stays a
//! test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    reason = "it is the library of the fuzz targets, read here as a module"
)]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "{} fails", path.display());
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", folder.display());
}

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
