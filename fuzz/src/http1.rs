//! What arrives on the wire: heads and bodies of HTTP/1.1.

use egress_config::{Diagnostics, List};
use egress_http_proxy::acl::{AbsoluteForm, Policy, Rules, Target};
use egress_http_proxy::http1::{
    BodyLength, Chunked, Fields, Form, HeadScanner, LineEnds, Method, Outgoing, Request,
    RequestRewrite, Response, ResponseRewrite, Version, Via, write_request, write_response,
};

/// Request heads, against the decision path: what is accepted is judged
/// without a panic, and is sent on as a head that every reader takes for the
/// same message.
pub fn request_heads(data: &[u8]) {
    let mut scanner = HeadScanner::new(LineEnds::Strict);
    let Ok(Some(length)) = scanner.scan(data) else {
        return;
    };
    let head = data.get(..length).unwrap_or_default();
    let mut room = Fields::new();
    let Ok(request) = Request::parse(head, &mut room) else {
        return;
    };
    let via = Via::new(7);
    let (target, path) = match request.form() {
        Form::Tunnel => (Target::from_authority(request.target()), &b"/"[..]),
        Form::Forward => match AbsoluteForm::parse(request.target()) {
            Ok(uri) => {
                let path = uri.path_and_query();
                (Ok(uri.into_target()), path)
            }
            Err(error) => (Err(error), &b"/"[..]),
        },
    };
    let Ok(target) = target else { return };
    let _ = policy().judge(&target);
    if via.is_in(&request) || request.form() == Form::Tunnel {
        return;
    }
    let origin_form = [
        if path.starts_with(b"/") {
            &b""[..]
        } else {
            b"/"
        },
        path,
    ]
    .concat();
    let mut out = Vec::new();
    let rewrite = RequestRewrite {
        host: &target.host_field(),
        origin_form: &origin_form,
        via: &via,
        forwarded_for: None,
    };
    write_request(&request, &rewrite, &mut out);
    let mut scanner = HeadScanner::new(LineEnds::Strict);
    assert_eq!(scanner.scan(&out), Ok(Some(out.len())), "one head, whole");
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut fields);
    assert!(other.parse(&out).is_ok_and(|status| status.is_complete()));
    let host = target.host_field().to_string();
    let named = |name: &str| {
        let fields = other.headers.iter();
        fields
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
            .collect::<Vec<_>>()
    };
    assert_eq!(named("host"), [host.as_bytes()]);
    assert!(named("proxy-authorization").is_empty());
    assert!(named("proxy-connection").is_empty());
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    match request.body() {
        BodyLength::Exactly(length) => {
            assert!(codings.is_empty());
            for text in &lengths {
                let text = String::from_utf8_lossy(text);
                assert_eq!(text.parse::<u64>().ok(), Some(length));
            }
            assert_eq!(
                lengths.len(),
                usize::from(length > 0 || !lengths.is_empty())
            );
        }
        BodyLength::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        BodyLength::UntilClose => panic!("no request is as long as its connection"),
    }
    // Sent on once more, it is known as ours.
    if let Ok(again) = Request::parse(&out, &mut Fields::new()) {
        assert!(via.is_in(&again));
        assert_eq!(again.body(), request.body());
    }
}

fn policy() -> Policy {
    let list = List::new(
        "X",
        "!a.test\n*.b.test:80\n10.0.0.0/8\n!2001:db8::/32\napi-*.c.test\n*",
    );
    Policy::new(Rules::parse(&list, &mut Diagnostics::new()))
}

/// Response heads: what is accepted is sent on with the same framing.
pub fn response_heads(data: &[u8]) {
    let mut scanner = HeadScanner::new(LineEnds::Lenient);
    let Ok(Some(length)) = scanner.scan(data) else {
        return;
    };
    let head = data.get(..length).unwrap_or_default();
    for method in [Method::Idempotent, Method::Head] {
        let mut room = Fields::new();
        let Ok(response) = Response::parse(head, method, &mut room) else {
            continue;
        };
        if response.is_interim() || response.status() == 101 {
            continue;
        }
        let mut out = Vec::new();
        let rewrite = ResponseRewrite {
            via: &Via::new(7),
            body: response.body(),
            keeps_open: response.persists(),
            client: Version::Http11,
        };
        write_response(&response, &rewrite, &mut out);
        let mut scanner = HeadScanner::new(LineEnds::Strict);
        assert_eq!(scanner.scan(&out), Ok(Some(out.len())), "one head, whole");
        if let Ok(again) = Response::parse(&out, method, &mut Fields::new()) {
            assert_eq!(again.status(), response.status());
            assert_eq!(again.body(), response.body());
        }
    }
}

/// Chunked bodies: however they are cut, the same is read and sent on, and what
/// is sent on reads as the same data.
pub fn chunked_bodies(data: &[u8]) {
    let whole = transcode(data, data.len(), Outgoing::Plain);
    for step in [1, 3] {
        assert_eq!(transcode(data, step, Outgoing::Plain), whole);
    }
    if let Some((coded, _)) = transcode(data, data.len(), Outgoing::Chunked) {
        let again = transcode(&coded, coded.len(), Outgoing::Plain);
        assert_eq!(again.map(|(plain, _)| plain), whole.map(|(plain, _)| plain));
    }
}

fn transcode(data: &[u8], step: usize, outgoing: Outgoing) -> Option<(Vec<u8>, usize)> {
    let (mut chunked, mut out, mut read) = (Chunked::default(), Vec::new(), 0);
    for piece in data.chunks(step.max(1)) {
        read += chunked.transcode(piece, &mut out, outgoing).ok()?;
        if chunked.is_done() {
            return Some((out, read));
        }
    }
    None
}
