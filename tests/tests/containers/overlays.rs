//! The overlays, with images and addresses set by one more overlay on top.

use std::net::{IpAddr, Ipv4Addr};

use egress_lab::harness::{TestResult, libtest_mimic::Failed};

use crate::{
    adaptation::explain,
    confinement::{self, is_unprivileged},
    kustomize,
    manifest::Manifest,
    modes,
    scene::{Played, Scene},
};

/// The address that `tests/manifests/podman` sets.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 12, 90));

/// An overlay as podman can play it, compared with what is shipped.
fn overlay(shipped: &str, played: &str) -> Result<Manifest, Failed> {
    let shipped = kustomize::build(&format!("manifests/overlays/{shipped}"))?;
    let manifest = kustomize::build(&format!("tests/manifests/podman/{played}"))?;
    explain(played, &shipped, &manifest)?;
    Ok(manifest)
}

/// A client that is told nothing but a name.
pub(crate) fn plain_client() -> Result<Manifest, Failed> {
    kustomize::combine(
        &["tests/manifests/podman/client.yaml"],
        &["images", "adaptation"],
    )
}

/// The client of the manifests, with its variables for a proxy of this name.
fn proxy_client(service: &str) -> Result<Manifest, Failed> {
    let client = kustomize::combine(
        &["manifests/examples/http-proxy/client-pod.yaml"],
        &["images", "adaptation"],
    )?;
    // As a user does who gave the proxy another name.
    Manifest::parse(
        client
            .text()
            .replace("//egress-1:", &format!("//{service}:")),
    )
}

/// Plays it, and checks of each container what it may do: of the init container
/// while it runs.
fn play(scene: &Scene, manifest: &Manifest) -> Result<Played, Failed> {
    let (router, init) = scene.play_watched(manifest, confinement::watch_init)?;
    if init.is_none() {
        return Err("no init container ran as confined as it should be".into());
    }
    for container in &router.containers {
        is_unprivileged(&scene.machine, container)?;
    }
    asked_for_as_shipped(scene)?;
    Ok(router)
}

pub(crate) fn redirect() -> TestResult {
    let manifest = overlay("kubernetes/redirect", "redirect")?;
    let scene = Scene::start(&manifest)?;
    let router = play(&scene, &manifest)?;
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::redirects(&scene, &router, &client, "egress-redirect", SOURCE)
}

pub(crate) fn http_proxy() -> TestResult {
    let manifest = overlay("kubernetes/http-proxy", "http-proxy")?;
    let scene = Scene::start(&manifest)?;
    play(&scene, &manifest)?;
    let client = scene.unprivileged_client(&proxy_client("egress-http-proxy")?)?;
    modes::proxies_http(&scene, &client, SOURCE)?;
    // Follows its ConfigMap while it runs.
    let url = "http://internal.example.com/";
    modes::change(&scene, "egress-http-proxy", "internal.example.com\n")?;
    modes::comes_to_reach(&client, url, SOURCE, "203.0.113.25:80")?;
    modes::is_denied(&client, "http://www.example.com/")?;
    scene.saw_only(SOURCE)
}

pub(crate) fn dns_proxy() -> TestResult {
    let manifest = overlay("kubernetes/dns-proxy", "dns-proxy")?;
    let scene = Scene::start(&manifest)?;
    let router = play(&scene, &manifest)?;
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::proxies_names(&scene, &router, &client, "egress-dns-proxy", SOURCE)?;
    modes::change(&scene, "egress-dns-proxy", "80 db.example.com\n")?;
    let url = "http://egress-dns-proxy/";
    modes::comes_to_reach(&client, url, SOURCE, "203.0.113.26:80")?;
    scene.saw_only(SOURCE)
}

/// What podman asked its runtime for, of all containers of a pod.
fn asked_for_as_shipped(scene: &Scene) -> TestResult {
    let records = scene.machine.records()?;
    let ours = |name: &str| name.starts_with("/egress-");
    let mut routers = 0;
    for record in &records {
        let arguments = record.arguments();
        if !arguments.first().is_some_and(|program| ours(program)) {
            continue;
        }
        let wanted: &[&str] = if arguments == ["/egress-router-init"] {
            routers += 1;
            &["CAP_NET_ADMIN", "CAP_NET_RAW"]
        } else {
            &[]
        };
        let mut capabilities = record.capabilities();
        capabilities.sort_unstable();
        if capabilities != wanted
            || !record.no_new_privileges()
            || !record.is_read_only()
            || !record.has_default_seccomp()
        {
            return Err(format!("{arguments:?} is asked for as {}", record.0).into());
        }
    }
    if routers == 1 {
        return Ok(());
    }
    Err(format!("{routers} routers were started").into())
}

/// OpenShift's SDN gives an interface to privileged pods only; the container
/// that keeps the pod has no more than elsewhere.
pub(crate) fn openshift_alone_is_privileged() -> TestResult {
    let manifest = overlay("openshift/redirect", "openshift")?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    for container in &router.containers {
        is_unprivileged(&scene.machine, container)?;
    }
    let records = scene.machine.records()?;
    let init = records
        .iter()
        .find(|record| record.arguments() == ["/egress-router-init"])
        .ok_or("no router was started")?;
    if !init.capabilities().contains(&"CAP_SYS_ADMIN") || !init.is_read_only() {
        return Err(format!("the router is asked for as {}", init.0).into());
    }
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::redirects(&scene, &router, &client, "egress-redirect", modes::SOURCE)
}
