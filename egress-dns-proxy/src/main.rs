//! `egress-dns-proxy`: see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(egress_dns_proxy::program::main(std::env::args_os()))
}
