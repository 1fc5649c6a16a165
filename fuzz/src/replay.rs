//! Runs a check over its corpus, on stable: the tests of the programs read this
//! file as a module.

use std::fs;
use std::path::Path;

/// Runs `check` over every file of the corpus of `target`.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
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
