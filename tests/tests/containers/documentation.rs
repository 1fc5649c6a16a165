//! The examples of OpenShift's documentation, with nothing but the names of the
//! images replaced.

use egress_lab::{
    Family,
    harness::{TestResult, libtest_mimic::Failed},
};

use crate::{
    adaptation::{differences, explain},
    kustomize::{self, repository},
    manifest::Manifest,
    modes::{self, SOURCE, expect, is_denied},
    overlays::plain_client,
    scene::Scene,
};

/// An example: what is written, compared with what is played.
fn example(file: &str) -> Result<Manifest, Failed> {
    let path = format!("tests/manifests/openshift-documentation/{file}.yaml");
    let written = Manifest::read(&repository(&path))?;
    let replaced = kustomize::combine(&[&path], &["images"])?;
    let changes = differences(&written, &replaced);
    if changes.is_empty() {
        return Err(format!("{file}: no image was replaced").into());
    }
    if let Some(other) = changes.iter().find(|change| !change.is_of_an_image()) {
        return Err(format!("{file}: more than an image was replaced: {other}").into());
    }
    let played = kustomize::combine(&[&path], &["images", "adaptation"])?;
    explain(&format!("documentation {file}"), &written, &played)?;
    Ok(played)
}

pub(crate) fn single_destination() -> TestResult {
    let manifest = example("single-destination")?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    let client = scene.client(&plain_client()?)?;
    expect(&client.get("http://egress-1/")?, SOURCE, "203.0.113.25:80")?;
    let instead = "www.example.com:443:egress-1:443";
    let secret = client.curl(&["--connect-to", instead, "https://www.example.com/"])?;
    expect(&secret, SOURCE, "203.0.113.25:443")?;
    let other = client.get(&format!("http://{}:2222/", router.address))?;
    expect(&other, SOURCE, "203.0.113.25:2222")?;
    scene.saw_only(SOURCE)
}

fn several_destinations(file: &str) -> TestResult {
    let manifest = example(file)?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    let client = scene.client(&plain_client()?)?;
    let name = router.address.to_string();
    modes::redirects(&scene, &router, &client, &name, SOURCE)
}

pub(crate) fn multiple_destinations() -> TestResult {
    several_destinations("multiple-destinations")
}

pub(crate) fn config_map() -> TestResult {
    several_destinations("config-map")
}

pub(crate) fn replication_controller() -> TestResult {
    let manifest = example("replication-controller")?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    let client = scene.client(&plain_client()?)?;
    for port in [80, 2222] {
        let seen = client.get(&format!("http://{}:{port}/", router.address))?;
        expect(&seen, SOURCE, &format!("203.0.113.25:{port}"))?;
    }
    scene.saw_only(SOURCE)
}

/// `!*.example.com`, `!192.168.1.0/24`, `*`, for a client with the variables of
/// the documentation.
pub(crate) fn http_proxy_with_three_lines() -> TestResult {
    let (manifest, client) = (example("http-proxy")?, example("client")?);
    let scene = Scene::start(&manifest)?;
    scene.play(&manifest)?;
    let client = scene.client(&client)?;
    for (url, server) in [
        ("http://foobar.com/", "203.0.113.26:80"),
        ("https://foobar.com/", "203.0.113.26:443"),
        ("http://203.0.113.27:2222/", "203.0.113.27:2222"),
    ] {
        expect(&client.get(url)?, SOURCE, server)?;
    }
    for url in [
        "http://www.example.com/",
        "https://www.example.com/",
        "http://example.com/",
        "http://192.168.1.1/",
    ] {
        is_denied(&client, url)?;
    }
    scene.saw_only(SOURCE)
}

pub(crate) fn dns_proxy() -> TestResult {
    let manifest = example("dns-proxy")?;
    let scene = Scene::start(&manifest)?;
    let router = scene.play(&manifest)?;
    let client = scene.client(&plain_client()?)?;
    let service = router.services.first().ok_or("no Service")?;
    let service = service.address(Family::Ipv4);
    for (url, server) in [
        ("http://egress-dns-svc/".to_owned(), "203.0.113.25:80"),
        ("http://egress-dns-svc:100/".to_owned(), "203.0.113.27:100"),
        (format!("http://{service}/"), "203.0.113.25:80"),
        (
            format!("http://{}:8080/", router.address),
            "203.0.113.26:80",
        ),
    ] {
        expect(&client.get(&url)?, SOURCE, server)?;
    }
    let instead = format!("foobar.com:443:{}:8443", router.address);
    let secret = client.curl(&["--connect-to", &instead, "https://foobar.com/"])?;
    expect(&secret, SOURCE, "203.0.113.26:443")?;
    scene.saw_only(SOURCE)
}
