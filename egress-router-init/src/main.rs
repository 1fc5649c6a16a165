//! `egress-router-init`: see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(egress_router_init::program::main(std::env::args_os()))
}
