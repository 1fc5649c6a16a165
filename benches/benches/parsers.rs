//! `cargo bench --package egress-benches --bench parsers`: everything that
//! reads what a user wrote or what came over the wire.

#![expect(
    clippy::expect_used,
    reason = "a text of our own that is not accepted ends the benchmark"
)]

use std::fmt::Write as _;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use egress_config::{Diagnostics, List};
use egress_dns_proxy::mapping::Mappings;
use egress_http_proxy::acl::{AbsoluteForm, ClientHello, Rules, Target};
use egress_http_proxy::http1::{
    BodyLength, Chunked, Fields, HeadScanner, LineEnds, Method, Outgoing, Request, RequestRewrite,
    Response, ResponseRewrite, Version, Via, write_chunk, write_last_chunk, write_request,
    write_response,
};
use egress_router_init::redirect::Redirects;
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Lines of a list.
const LINES: usize = 10_000;

/// As curl sends it.
const SMALL_REQUEST: &[u8] = b"GET http://host.example:8080/1024 HTTP/1.1\r\n\
    Host: host.example:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Proxy-Connection: Keep-Alive\r\n\r\n";

/// As a browser sends it.
const LARGE_REQUEST: &[u8] =
    b"GET http://www.host.example/articles/2026/01/a-title?from=home HTTP/1.1\r\n\
    Host: www.host.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n\
    Referer: http://www.host.example/home\r\nDNT: 1\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\
    Upgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n\
    If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    If-None-Match: \"0123456789abcdef\"\r\nCache-Control: max-age=0\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\nETag: \"0123456789abcdef\"\r\nVary: Accept-Encoding\r\n\
    Cache-Control: no-store\r\n\r\n";

fn main() {
    divan::main();
}

/// A list of [`LINES`] lines.
fn list(line: impl Fn(usize, &mut String)) -> String {
    let mut text = String::new();
    for n in 0..LINES {
        line(n, &mut text);
        text.push('\n');
    }
    text
}

/// Times a parser of lists, one line at a time.
fn lines(bencher: Bencher<'_, '_>, text: &str, parse: impl Fn(&List, &mut Diagnostics) -> usize) {
    let mut diagnostics = Diagnostics::new();
    let parsed = parse(&List::new("X", text), &mut diagnostics);
    assert!(diagnostics.errors().is_empty(), "{diagnostics}");
    assert_eq!(parsed, LINES);
    bencher.counter(ItemsCount::new(LINES)).bench_local(|| {
        let list = List::new("X", black_box(text));
        parse(&list, &mut Diagnostics::new())
    });
}

#[divan::bench]
fn rule_lines(bencher: Bencher<'_, '_>) {
    let text = list(|n, text| {
        let written = match n % 5 {
            0 => write!(text, "host{n}.example"),
            1 => write!(text, "!*.zone{n}.example"),
            2 => write!(text, "20.{}.{}.0/24", n / 256, n % 256),
            3 => write!(text, "host{n}.example:8443"),
            _ => write!(text, "api-*.zone{n}.example"),
        };
        written.expect("a string takes it");
    });
    lines(bencher, &text, |list, diagnostics| {
        Rules::parse(list, diagnostics).len()
    });
}

#[divan::bench]
fn redirect_lines(bencher: Bencher<'_, '_>) {
    let text = list(|n, text| {
        let (port, remote) = (n + 1, n + 20_000);
        write!(text, "{port} tcp 20.0.{}.{} {remote}", n / 256, n % 256).expect("it takes it");
    });
    lines(bencher, &text, |list, diagnostics| {
        let redirects = Redirects::parse(list, |_| Ok(()), diagnostics);
        redirects.mappings().len()
    });
}

#[divan::bench]
fn destination_lines(bencher: Bencher<'_, '_>) {
    let text = list(|n, text| {
        let (port, remote) = (n + 1, n + 20_000);
        write!(text, "{port} host{n}.example {remote}").expect("a string takes it");
    });
    lines(bencher, &text, |list, diagnostics| {
        Mappings::parse(list, diagnostics).iter().count()
    });
}

/// The end of a head, as its bytes arrive at once.
fn scan(head: &[u8], ends: LineEnds) -> usize {
    let scanned = HeadScanner::new(ends).scan(head);
    scanned.expect("it is one").expect("it is all there")
}

#[divan::bench(args = [SMALL_REQUEST, LARGE_REQUEST].map(<[u8]>::len))]
fn request_heads(bencher: Bencher<'_, '_>, length: usize) {
    let head = of_length(length);
    bencher.counter(BytesCount::of_slice(head)).bench(|| {
        let head = black_box(head);
        scan(head, LineEnds::Strict);
        let mut room = Fields::new();
        let request = Request::parse(head, &mut room).expect("it is a request");
        (request.body(), request.persists())
    });
}

#[divan::bench(args = [SMALL_REQUEST, LARGE_REQUEST].map(<[u8]>::len))]
fn request_heads_written_anew(bencher: Bencher<'_, '_>, length: usize) {
    let head = of_length(length);
    let mut room = Fields::new();
    let request = Request::parse(head, &mut room).expect("it is a request");
    let uri = AbsoluteForm::parse(request.target()).expect("it is absolute");
    let via = Via::new(7);
    let mut out = Vec::with_capacity(4_096);
    bencher.counter(BytesCount::of_slice(head)).bench_local(|| {
        out.clear();
        let rewrite = RequestRewrite {
            host: &uri.target().host_field(),
            origin_form: uri.path_and_query(),
            via: &via,
            forwarded_for: None,
        };
        write_request(black_box(&request), &rewrite, &mut out);
        out.len()
    });
}

fn of_length(length: usize) -> &'static [u8] {
    let heads = [SMALL_REQUEST, LARGE_REQUEST];
    let found = heads.into_iter().find(|head| head.len() == length);
    found.expect("it is one of these")
}

#[divan::bench]
fn response_heads(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(RESPONSE)).bench(|| {
        let head = black_box(RESPONSE);
        scan(head, LineEnds::Lenient);
        let mut room = Fields::new();
        let response =
            Response::parse(head, Method::Idempotent, &mut room).expect("it is a response");
        (response.status(), response.body(), response.persists())
    });
}

#[divan::bench]
fn response_heads_written_anew(bencher: Bencher<'_, '_>) {
    let mut room = Fields::new();
    let response =
        Response::parse(RESPONSE, Method::Idempotent, &mut room).expect("it is a response");
    let via = Via::new(7);
    let mut out = Vec::with_capacity(4_096);
    bencher
        .counter(BytesCount::of_slice(RESPONSE))
        .bench_local(|| {
            out.clear();
            let rewrite = ResponseRewrite {
                via: &via,
                body: BodyLength::Exactly(1024),
                keeps_open: true,
                client: Version::Http11,
            };
            write_response(black_box(&response), &rewrite, &mut out);
            out.len()
        });
}

/// 256 KiB in chunks of so many bytes, read and written anew.
#[divan::bench(args = [16, 1_024, 16_384])]
fn chunked_bodies(bencher: Bencher<'_, '_>, chunk: usize) {
    let mut coded = Vec::new();
    let (mut plain, mut out) = (vec![b'x'; 256 << 10], Vec::new());
    for data in plain.chunks(chunk) {
        write_chunk(data, &mut coded);
    }
    write_last_chunk(&mut coded);
    let read = |out: &mut Vec<u8>, outgoing| {
        let mut chunked = Chunked::default();
        let read = chunked.transcode(black_box(&coded), out, outgoing);
        assert!(chunked.is_done());
        read.expect("it is chunked")
    };
    plain.clear();
    assert_eq!(read(&mut plain, Outgoing::Plain), coded.len());
    assert_eq!(plain.len(), 256 << 10);
    bencher
        .counter(BytesCount::of_slice(&plain))
        .bench_local(|| {
            out.clear();
            read(&mut out, Outgoing::Chunked)
        });
}

#[divan::bench(args = ["host.example:443", "192.0.2.7:443", "[2001:db8::7]:443"])]
fn authorities(bencher: Bencher<'_, '_>, text: &str) {
    bencher.bench(|| Target::from_authority(black_box(text.as_bytes())).expect("it is a target"));
}

#[divan::bench(args = ["http://host.example/", "http://a.host.example:8080/path/to?query=1"])]
fn absolute_uris(bencher: Bencher<'_, '_>, text: &str) {
    bencher.bench(|| AbsoluteForm::parse(black_box(text.as_bytes())).expect("it is absolute"));
}

#[divan::bench]
fn client_hellos(bencher: Bencher<'_, '_>) {
    let hello = client_hello();
    let found = ClientHello::parse(&hello);
    assert!(
        matches!(found, ClientHello::ServerName(Some(_))),
        "{found:?}"
    );
    bencher
        .counter(BytesCount::of_slice(&hello))
        .bench(|| ClientHello::parse(black_box(&hello)));
}

/// The first bytes that a client sends.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = "www.host.example".try_into().expect("it is a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("it can begin");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes it");
    hello
}
