#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/rule_lines.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::rule_lines(data));
