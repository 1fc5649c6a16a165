//! How the programs are linked; the build script of each of them.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=../images/link.rs");
    // Where the program itself is to be relocated is told in a bit for each place
    // instead of 24 bytes (DT_RELR): a fifth of a megabyte less to load and to keep.
    // musl reads it since 1.2.4; a linker that does not know it says so and goes on.
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
