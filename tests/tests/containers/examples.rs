//! The examples that a user copies: each file of `manifests/examples` that plain
//! Kubernetes takes, with its `ConfigMap`, Service and client.

use egress_lab::harness::{TestResult, libtest_mimic::Failed};

use crate::{
    adaptation::explain,
    confinement::{is_router, is_unprivileged},
    kustomize,
    manifest::Manifest,
    modes::{self, SOURCE},
    overlays::plain_client,
    scene::{Played, Scene},
};

/// Name of the Service in all of them.
const SERVICE: &str = "egress-1";

fn example(files: &[&str]) -> Result<Manifest, Failed> {
    let paths: Vec<_> = files
        .iter()
        .map(|file| format!("manifests/examples/{file}"))
        .collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let shipped = kustomize::combine(&paths, &[])?;
    let manifest = kustomize::combine(&paths, &["images", "adaptation"])?;
    explain(&files.join(" + "), &shipped, &manifest)?;
    Ok(manifest)
}

fn unprivileged(scene: &Scene, router: &Played) -> TestResult {
    for container in &router.containers {
        is_unprivileged(&scene.machine, container)?;
    }
    Ok(())
}

fn redirect(files: &[&str]) -> TestResult {
    let manifest = example(files)?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    unprivileged(&scene, &router)?;
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::redirects(&scene, &router, &client, SERVICE, SOURCE)
}

pub(crate) fn redirect_pod() -> TestResult {
    redirect(&["redirect/pod.yaml", "redirect/service.yaml"])
}

pub(crate) fn redirect_deployment() -> TestResult {
    redirect(&[
        "redirect/configmap.yaml",
        "redirect/deployment.yaml",
        "redirect/service.yaml",
    ])
}

pub(crate) fn redirect_replication_controller() -> TestResult {
    redirect(&[
        "redirect/configmap.yaml",
        "redirect/replicationcontroller.yaml",
        "redirect/service.yaml",
    ])
}

/// The router that stays keeps its capabilities, and follows its `ConfigMap`.
pub(crate) fn redirect_that_stays() -> TestResult {
    let manifest = example(&[
        "redirect/configmap.yaml",
        "redirect/live-reload.yaml",
        "redirect/service.yaml",
    ])?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    for container in &router.containers {
        is_router(&scene.machine, container)?;
    }
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::redirects(&scene, &router, &client, SERVICE, SOURCE)?;
    modes::change(&scene, "egress-routes", "80 tcp 203.0.113.27\n")?;
    let url = format!("http://{SERVICE}/");
    modes::comes_to_reach(&client, &url, SOURCE, "203.0.113.27:80")?;
    scene.saw_only(SOURCE)
}

fn http_proxy(files: &[&str]) -> TestResult {
    let manifest = example(files)?;
    let client = example(&["http-proxy/client-pod.yaml"])?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    unprivileged(&scene, &router)?;
    let client = scene.unprivileged_client(&client)?;
    modes::proxies_http(&scene, &client, SOURCE)
}

pub(crate) fn http_proxy_pod() -> TestResult {
    http_proxy(&["http-proxy/pod.yaml", "http-proxy/service.yaml"])
}

pub(crate) fn http_proxy_deployment() -> TestResult {
    http_proxy(&[
        "http-proxy/configmap.yaml",
        "http-proxy/deployment.yaml",
        "http-proxy/service.yaml",
    ])
}

pub(crate) fn http_proxy_replication_controller() -> TestResult {
    http_proxy(&[
        "http-proxy/configmap.yaml",
        "http-proxy/replicationcontroller.yaml",
        "http-proxy/service.yaml",
    ])
}

fn dns_proxy(files: &[&str]) -> TestResult {
    let manifest = example(files)?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    unprivileged(&scene, &router)?;
    let client = scene.unprivileged_client(&plain_client()?)?;
    modes::proxies_names(&scene, &router, &client, SERVICE, SOURCE)
}

pub(crate) fn dns_proxy_pod() -> TestResult {
    dns_proxy(&["dns-proxy/pod.yaml", "dns-proxy/service.yaml"])
}

pub(crate) fn dns_proxy_deployment() -> TestResult {
    dns_proxy(&[
        "dns-proxy/configmap.yaml",
        "dns-proxy/deployment.yaml",
        "dns-proxy/service.yaml",
    ])
}

pub(crate) fn dns_proxy_replication_controller() -> TestResult {
    dns_proxy(&[
        "dns-proxy/configmap.yaml",
        "dns-proxy/replicationcontroller.yaml",
        "dns-proxy/service.yaml",
    ])
}
