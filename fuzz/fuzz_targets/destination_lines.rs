#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/destination_lines.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::destination_lines(data));
