//! The images and the manifests as they are shipped: containers started by
//! `podman kube play` on a node of the lab, where the init container makes its
//! macvlan itself; clients in containers; an outside that tells whom it saw.
//!
//! Needs root, podman, runc, the CNI plugins, kustomize (`scripts/install-deps`)
//! and the archives of `make images`; `EGRESS_IMAGE_DIR` names another folder
//! that holds them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests end at the first surprise, with the place"
)]

mod adaptation;
mod client;
mod confinement;
mod documentation;
mod examples;
mod image;
mod kustomize;
mod machine;
mod manifest;
mod modes;
mod overlays;
mod requirements;
mod runtime;
mod scene;
mod site;

use std::{env, process::ExitCode};

use egress_lab::{harness, trials};

fn main() -> ExitCode {
    let mut arguments = env::args();
    if arguments.nth(1).as_deref() == Some(runtime::COMMAND) {
        return runtime::main(arguments);
    }
    let listing = env::args().any(|argument| argument == "--list");
    if !listing && let Err(missing) = requirements::check() {
        println!("{missing}");
        return ExitCode::FAILURE;
    }
    harness::run(
        &[],
        trials![
            overlays::redirect,
            overlays::http_proxy,
            overlays::dns_proxy,
            overlays::openshift_alone_is_privileged,
            examples::redirect_pod,
            examples::redirect_deployment,
            examples::redirect_replication_controller,
            examples::redirect_that_stays,
            examples::http_proxy_pod,
            examples::http_proxy_deployment,
            examples::http_proxy_replication_controller,
            examples::dns_proxy_pod,
            examples::dns_proxy_deployment,
            examples::dns_proxy_replication_controller,
            documentation::single_destination,
            documentation::multiple_destinations,
            documentation::config_map,
            documentation::replication_controller,
            documentation::http_proxy_with_three_lines,
            documentation::dns_proxy,
        ],
    )
}
