//! What each mode does for a client: the same, however the router was started.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use egress_lab::{
    Family, Node, Protocol, Seen, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};

use crate::{
    client::Client,
    scene::{ELSEWHERE, Played, Scene},
};

/// The address that the manifests have.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 12, 99));

/// How long a program may take to see that a file of its own has changed.
const RELOADED: Duration = Duration::from_secs(20);

/// Checks who reached whom.
pub(crate) fn expect(seen: &Seen, source: IpAddr, server: &str) -> TestResult {
    if seen.client.ip() == source && seen.server == server.parse::<SocketAddr>()? {
        return Ok(());
    }
    Err(format!("{seen}, but {source} was to be seen by {server}").into())
}

/// The list of the redirect manifests: three ports, and the rest elsewhere.
pub(crate) fn redirects(
    scene: &Scene,
    router: &Played,
    client: &Client<'_>,
    name: &str,
    source: IpAddr,
) -> TestResult {
    let get = |port| client.get(&format!("http://{name}:{port}/"));
    expect(&get(80)?, source, "203.0.113.25:80")?;
    expect(&get(8080)?, source, "203.0.113.26:80")?;
    reaches_the_api(client, name, source)?;
    falls_back(router, client, source)?;
    scene.saw_only(source)
}

/// Port 8443 leads to the host whose certificate the client checks.
fn reaches_the_api(client: &Client<'_>, name: &str, source: IpAddr) -> TestResult {
    let instead = format!("api.example.net:443:{name}:8443");
    let secret = client.curl(&["--connect-to", &instead, "https://api.example.net/"])?;
    expect(&secret, source, "203.0.113.26:443")
}

/// A port that no Service names.
fn falls_back(router: &Played, client: &Client<'_>, source: IpAddr) -> TestResult {
    let other = client.get(&format!("http://{}:2222/", router.address))?;
    expect(&other, source, "203.0.113.27:2222")
}

/// The list of the HTTP proxy's manifests, for a client with their variables.
pub(crate) fn proxies_http(scene: &Scene, client: &Client<'_>, source: IpAddr) -> TestResult {
    for (url, server) in [
        ("http://www.example.com/", "203.0.113.25:80"),
        ("https://www.example.com/", "203.0.113.25:443"),
        ("https://api.example.net/", "203.0.113.26:443"),
        ("http://203.0.113.27/", "203.0.113.27:80"),
    ] {
        expect(&client.get(url)?, source, server)?;
    }
    for url in [
        "http://internal.example.com/",
        "https://internal.example.com/",
    ] {
        is_denied(client, url)?;
    }
    is_denied(client, &format!("http://{ELSEWHERE}/"))?;
    scene.saw_only(source)
}

/// The proxy says no.
pub(crate) fn is_denied(client: &Client<'_>, url: &str) -> TestResult {
    let error = client.refused(url)?;
    if error.contains("error: 403") || error.contains("response 403") {
        return Ok(());
    }
    Err(format!("{url} is not denied but: {error}").into())
}

/// The list of the DNS proxy's manifests: names, and one of them by UDP.
pub(crate) fn proxies_names(
    scene: &Scene,
    router: &Played,
    client: &Client<'_>,
    name: &str,
    source: IpAddr,
) -> TestResult {
    let get = |port| client.get(&format!("http://{name}:{port}/"));
    expect(&get(80)?, source, "203.0.113.25:80")?;
    expect(&get(5432)?, source, "203.0.113.26:5432")?;
    reaches_the_api(client, name, source)?;
    let lab = scene.lab();
    let _log = lab.outside(2).serve(&[(Protocol::Udp, 514)])?;
    let service = router.services.first().ok_or("no Service")?;
    let syslog = SocketAddr::new(service.address(Family::Ipv4), 514);
    let datagram = lab.client(Node::Two).udp(syslog, "a line of a log")?;
    expect(&datagram, source, "203.0.113.27:514")?;
    scene.saw_only(source)
}

/// Changes a file of a played `ConfigMap`, as a volume changes: at once.
pub(crate) fn change(scene: &Scene, config_map: &str, text: &str) -> TestResult {
    let folder = scene.machine.config_map(config_map);
    let new = folder.join(".new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, folder.join("destination"))?)
}

/// Waits until a client reaches a server that it did not reach before.
pub(crate) fn comes_to_reach(
    client: &Client<'_>,
    url: &str,
    source: IpAddr,
    server: &str,
) -> TestResult {
    eventually(RELOADED, || {
        let reach = || -> Result<(), Failed> { expect(&client.get(url)?, source, server) };
        reach().map_err(|error| error.message().unwrap_or_default().to_owned())
    });
    Ok(())
}
