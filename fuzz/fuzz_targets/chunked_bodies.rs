#![no_main]
#![allow(dead_code, reason = "each target runs one of the checks")]

use libfuzzer_sys::fuzz_target;

#[path = "../src/http1.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::chunked_bodies(data));
