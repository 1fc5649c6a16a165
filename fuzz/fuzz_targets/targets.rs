#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/targets.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::targets(data));
