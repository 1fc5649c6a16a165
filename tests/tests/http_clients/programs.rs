//! Clients as people run them: each is a program of the machine.

use std::fs;

use egress_lab::{
    Family,
    harness::{TestResult, libtest_mimic::Failed},
};

use crate::{
    site::pattern,
    visit::{ALLOWED, Client, DENIED, Setup, visits},
};

const CURL: &str = "/usr/bin/curl";
const PYTHON: &str = "/usr/bin/python3";
const NODE: &str = "/usr/bin/node";
const WGET: &str = "/usr/bin/wget";
const SHELL: &str = "/bin/sh";

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().copied().map(str::to_owned).collect()
}

/// Arguments of an interpreter that runs `script`.
fn scripted(script: &[&str], url: &str, into: &str, ca: &str, body: Option<&str>) -> Vec<String> {
    let mut arguments = strings(script);
    arguments.extend(strings(&[url, into, ca, body.unwrap_or_default()]));
    arguments
}

pub(crate) fn curl() -> TestResult {
    visits(Client {
        program: CURL,
        arguments: |url, into, ca, body| {
            let mut arguments = strings(&["-sS", "--fail", "--cacert", ca, "-o", into, url]);
            if let Some(body) = body {
                arguments.extend(strings(&["--data-binary", &format!("@{body}")]));
            }
            arguments
        },
        refusals: ["error: 403", "error: 403"],
    })
}

pub(crate) fn wget() -> TestResult {
    visits(Client {
        program: WGET,
        arguments: |url, into, ca, body| {
            let ca = format!("--ca-certificate={ca}");
            let mut arguments = strings(&["--no-verbose", "--tries=1", &ca, "-O", into, url]);
            if let Some(body) = body {
                arguments.push(format!("--post-file={body}"));
            }
            arguments
        },
        refusals: ["Proxy tunneling failed: Forbidden", "ERROR 403"],
    })
}

pub(crate) fn python_urllib() -> TestResult {
    const SCRIPT: &str = r#"
import ssl, sys, urllib.request
url, into, ca, body = sys.argv[1:]
data = open(body, "rb").read() if body else None
context = ssl.create_default_context(cafile=ca)
with urllib.request.urlopen(url, data=data, timeout=30, context=context) as answer:
    open(into, "wb").write(answer.read())
"#;
    visits(Client {
        program: PYTHON,
        arguments: |url, into, ca, body| scripted(&["-c", SCRIPT], url, into, ca, body),
        refusals: ["Tunnel connection failed: 403", "HTTP Error 403"],
    })
}

pub(crate) fn python_requests() -> TestResult {
    // A generator is sent in chunks, but not through a tunnel: until version
    // 2.29 requests then forgets to ask for one.
    const SCRIPT: &str = r#"
import requests, sys
url, into, ca, body = sys.argv[1:]
session = requests.Session()
if body:
    def chunks():
        with open(body, "rb") as file:
            while chunk := file.read(7000):
                yield chunk
    data = chunks() if url.startswith("http:") else open(body, "rb")
    answer = session.post(url, data=data, verify=ca, timeout=30)
else:
    answer = session.get(url, verify=ca, timeout=30)
answer.raise_for_status()
open(into, "wb").write(answer.content)
"#;
    visits(Client {
        program: PYTHON,
        arguments: |url, into, ca, body| scripted(&["-c", SCRIPT], url, into, ca, body),
        refusals: ["Tunnel connection failed: 403", "403 Client Error"],
    })
}

/// `fetch` of Node, which takes every request through a tunnel.
pub(crate) fn node_fetch() -> TestResult {
    const SCRIPT: &str = r#"
const fs = require("fs");
const { Agent, ProxyAgent } = require("undici");
const [url, into, ca, body] = process.argv.slice(1);
const tls = { ca: fs.readFileSync(ca) };
const proxy = process.env.https_proxy;
const dispatcher = proxy
    ? new ProxyAgent({ uri: proxy, requestTls: tls })
    : new Agent({ connect: tls });
const options = body ? { method: "POST", body: fs.readFileSync(body) } : {};
fetch(url, { ...options, dispatcher })
    .then(async (answer) => {
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        fs.writeFileSync(into, Buffer.from(await answer.arrayBuffer()));
        process.exit(0);
    })
    .catch((error) => {
        console.error(error.message, error.cause?.message);
        process.exit(1);
    });
"#;
    visits(Client {
        program: NODE,
        arguments: |url, into, ca, body| scripted(&["-e", SCRIPT, "--"], url, into, ca, body),
        refusals: ["Request was cancelled", "Request was cancelled"],
    })
}

pub(crate) fn node_proxy_agents() -> TestResult {
    const SCRIPT: &str = r#"
const fs = require("fs");
const [url, into, ca, body] = process.argv.slice(1);
const secure = url.startsWith("https:");
const proxy = process.env[secure ? "https_proxy" : "http_proxy"];
const makeAgent = require(secure ? "https-proxy-agent" : "http-proxy-agent");
const options = { ca: fs.readFileSync(ca), method: body ? "POST" : "GET" };
if (proxy) options.agent = makeAgent(proxy);
const request = require(secure ? "https" : "http").request(url, options, (answer) => {
    const chunks = [];
    answer.on("data", (chunk) => chunks.push(chunk));
    answer.on("end", () => {
        if (answer.statusCode !== 200) {
            console.error(`status ${answer.statusCode}`);
            process.exit(1);
        }
        fs.writeFileSync(into, Buffer.concat(chunks));
        process.exit(0);
    });
});
request.on("error", (error) => { console.error(error.message); process.exit(1); });
if (body) fs.createReadStream(body).pipe(request); else request.end();
"#;
    visits(Client {
        program: NODE,
        arguments: |url, into, ca, body| scripted(&["-e", SCRIPT, "--"], url, into, ca, body),
        refusals: ["status 403", "status 403"],
    })
}

pub(crate) fn git() -> TestResult {
    const REPOSITORY: &str = r#"
set -e
git init --quiet --initial-branch=main work
cd work
head -c 2000000 /dev/urandom > large
for number in 1 2 3 4 5 6 7 8 9; do
    echo "$number" > "file$number"
    git add .
    git -c user.name=lab -c user.email=lab@a.test commit --quiet -m "commit $number"
done
cd ..
git clone --quiet --bare work repo.git
git -C repo.git update-server-info
"#;
    const CLONE: &str = r#"
set -e
git clone --quiet "$1" "$2"
git -C "$2" fsck --full
git -C "$2" rev-parse HEAD >&2
cmp "$2/large" work/large
"#;
    let setup = Setup::start()?;
    let shell = |command: egress_lab::Command, script: &str| {
        let prelude = format!("cd {}\n", setup.path(""));
        command
            .env("GIT_SSL_CAINFO", setup.path("ca.pem"))
            .env("GIT_TERMINAL_PROMPT", "0")
            .arg("-c")
            .arg(prelude + script)
            .arg("sh")
    };
    let _ = shell(setup.direct(SHELL), REPOSITORY).run()?.expect(0);
    let clone = |command, url: &str, into: &str| shell(command, CLONE).arg(url).arg(into).run();
    let mut heads = Vec::new();
    for (number, scheme) in ["https", "http"].iter().enumerate() {
        let url = format!("{scheme}://{ALLOWED}/repo.git");
        let direct = clone(setup.direct(SHELL), &url, &format!("direct{number}"))?.expect(0);
        let proxied = clone(setup.through(SHELL), &url, &format!("proxied{number}"))?.expect(0);
        heads.extend([direct, proxied].map(|output| output.last_error_line().to_owned()));
    }
    heads.dedup();
    assert!(heads.len() == 1 && heads[0].len() == 40, "{heads:?}");
    let url = format!("https://{DENIED}/repo.git");
    let denied = clone(setup.through(SHELL), &url, "denied")?.expect(128);
    assert!(denied.stderr.contains("response 403"), "{}", denied.stderr);
    Ok(())
}

// --- what only curl can be told to do ---

/// Runs curl through the proxy; what it writes to stdout.
fn curl_says(setup: &Setup, arguments: &[&str]) -> Result<String, Failed> {
    let ca = setup.path("ca.pem");
    let command = setup.through(CURL).arg("-sS").arg("--cacert").arg(ca);
    let command = arguments
        .iter()
        .fold(command, |command, argument| command.arg(*argument));
    Ok(command.run()?.expect(0).stdout)
}

pub(crate) fn curl_speaks_http2_in_a_tunnel() -> TestResult {
    let setup = Setup::start()?;
    let url = format!("https://{ALLOWED}/seen");
    for (option, version) in [("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")] {
        let seen = curl_says(&setup, &[option, &url])?;
        assert_eq!(seen.lines().next(), Some(&*format!("GET /seen {version}")));
        // Nobody looks into a tunnel.
        assert!(!seen.contains("\nvia:"), "{seen}");
    }
    Ok(())
}

pub(crate) fn curl_tunnels_what_is_plain() -> TestResult {
    let setup = Setup::start()?;
    let url = format!("http://{ALLOWED}/seen");
    let seen = curl_says(&setup, &["--proxytunnel", &url])?;
    assert!(seen.starts_with("GET /seen HTTP/1.1\n"), "{seen}");
    assert!(!seen.contains("\nvia:"), "{seen}");
    Ok(())
}

pub(crate) fn curl_forwards_what_is_for_the_origin_only() -> TestResult {
    let setup = Setup::start()?;
    let url = format!("http://{ALLOWED}/seen");
    let seen = curl_says(
        &setup,
        &[
            "--proxy-user",
            "user:secret",
            "-H",
            "X-Own: kept",
            "-H",
            "Accept: text/x",
            &url,
        ],
    )?;
    for field in [
        "host: a.test\n",
        "via: ",
        "x-own: kept\n",
        "accept: text/x\n",
    ] {
        assert!(seen.contains(field), "no {field:?} in {seen}");
    }
    for field in ["proxy-", "x-forwarded-for:", "forwarded:"] {
        assert!(!seen.contains(&format!("\n{field}")), "{field:?} in {seen}");
    }
    Ok(())
}

pub(crate) fn curl_keeps_its_connection() -> TestResult {
    let setup = Setup::start()?;
    let urls = ["/bytes/5", "/stream/70000", "/seen", "/nothing", "/bytes/0"]
        .map(|path| format!("http://{ALLOWED}{path}"));
    let mut arguments = vec!["-w", "%{num_connects} "];
    for url in &urls {
        arguments.extend(["-o", "/dev/null", url.as_str()]);
    }
    assert_eq!(curl_says(&setup, &arguments)?, "1 0 0 0 0 ");
    Ok(())
}

pub(crate) fn curl_speaks_tls_to_the_proxy() -> TestResult {
    let setup = Setup::start_with(|command, folder| {
        let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
        command
            .env("EGRESS_HTTP_PROXY_TLS_LISTEN", ":8443")
            .env("EGRESS_HTTP_PROXY_TLS_CERTIFICATE", path("cert.pem"))
            .env("EGRESS_HTTP_PROXY_TLS_KEY", path("key.pem"))
    })?;
    let proxy = format!("https://{}", setup.lab.pod().socket(Family::Ipv4, 8443));
    let ca = setup.path("ca.pem");
    let over_tls = ["--proxy", &proxy, "--proxy-cacert", &ca];
    for scheme in ["http", "https"] {
        let (into, url) = (
            setup.path(scheme),
            format!("{scheme}://{ALLOWED}/bytes/300000"),
        );
        let _ = curl_says(&setup, &[&over_tls[..], &["-o", &into, &url]].concat())?;
        assert_eq!(setup.read(scheme)?, pattern(0, 300_000));
    }
    let denied = format!("http://{DENIED}/");
    let format = ["-o", "/dev/null", "-w", "%{http_code}", &denied];
    assert_eq!(
        curl_says(&setup, &[&over_tls[..], &format].concat())?,
        "403"
    );
    // The certificate is looked at.
    let unknown = setup.through(CURL).arg("-sS").arg("--proxy").arg(&proxy);
    let unknown = unknown.arg(format!("http://{ALLOWED}/")).run()?.expect(60);
    assert!(unknown.stderr.contains("certificate"), "{}", unknown.stderr);
    Ok(())
}

/// 64 MiB in each direction, forwarded and in a tunnel.
pub(crate) fn curl_moves_large_bodies() -> TestResult {
    const SIZE: usize = 64 << 20;
    let setup = Setup::start()?;
    let content = pattern(0, SIZE);
    fs::write(setup.file("large"), &content)?;
    let large = setup.path("large");
    for scheme in ["http", "https"] {
        let down = setup.path("down");
        let _ = curl_says(
            &setup,
            &["-o", &down, &format!("{scheme}://{ALLOWED}/bytes/{SIZE}")],
        )?;
        assert!(setup.read("down")? == content, "{scheme} download");
        let up = setup.path("up");
        let echo = format!("{scheme}://{ALLOWED}/echo");
        // With a length and Expect: 100-continue; then in chunks.
        for framing in ["X-None: 1", "Transfer-Encoding: chunked"] {
            let upload = ["--http1.1", "-H", framing, "-T", &large, "-o", &up, &echo];
            let _ = curl_says(&setup, &upload)?;
            assert!(setup.read("up")? == content, "{scheme} upload, {framing}");
        }
    }
    Ok(())
}

/// With the server name checked, an honest client passes and a fronting one
/// does not.
pub(crate) fn curl_cannot_hide_behind_another_name() -> TestResult {
    let setup = Setup::start_with(|command, _| command.env("EGRESS_HTTP_PROXY_SNI", "match"))?;
    let honest = curl_says(&setup, &[&format!("https://{ALLOWED}/bytes/4")])?;
    assert_eq!(honest.as_bytes(), pattern(0, 4));
    let fronted = setup
        .through(CURL)
        .arg("-sSk")
        .arg("--connect-to")
        .arg(format!("{DENIED}:443:{ALLOWED}:443"))
        .arg(format!("https://{DENIED}/bytes/4"))
        .run()?
        .expect(35);
    assert_eq!(fronted.stdout, "", "{}", fronted.stderr);
    Ok(())
}
