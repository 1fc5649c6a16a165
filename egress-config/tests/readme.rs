//! The README says what the programs say.

use std::fs;
use std::path::Path;

use egress_config::markdown_table;

#[test]
fn the_table_of_variables_is_the_programs_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).unwrap();
    let table = markdown_table();
    assert!(
        readme.contains(&table),
        "put this into README.md:\n\n{table}"
    );
}
