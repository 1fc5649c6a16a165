//! `egress-http-proxy`: see the library for what it does.

use std::process::ExitCode;

/// musl's allocator maps and unmaps memory all the time where connections come
/// and go, and a CONNECT costs a twentieth more with it.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(egress_http_proxy::program::main(std::env::args_os()))
}
