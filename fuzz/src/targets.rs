//! What the fuzz target of request targets checks. The tests of the HTTP proxy
//! replay its corpus on stable.

use std::net::IpAddr;

use egress_http_proxy::acl::{AbsoluteForm, Host, Target};

/// Targets in authority-form and absolute-form: what is accepted is canonical
/// and means the same when it is read again.
pub fn targets(data: &[u8]) {
    if let Ok(target) = Target::from_authority(data) {
        canonical(&target);
    }
    if let Ok(form) = AbsoluteForm::parse(data) {
        let path = form.path_and_query();
        assert!(data.ends_with(path));
        assert!(
            path.first()
                .is_none_or(|&first| first == b'/' || first == b'?')
        );
        assert!(!path.contains(&b'#') && !path.contains(&b' '));
        canonical(form.target());
    }
}

fn canonical(target: &Target) {
    match target.host() {
        Host::Name(name) => {
            assert!(name.as_str().parse::<IpAddr>().is_err());
            assert_eq!(name.as_str(), name.as_str().to_ascii_lowercase());
            assert!(!name.as_str().ends_with('.'));
        }
        Host::Address(IpAddr::V6(address)) => assert_eq!(address.to_ipv4_mapped(), None),
        Host::Address(IpAddr::V4(_)) => {}
    }
    let authority = target.to_string();
    assert_eq!(
        Target::from_authority(authority.as_bytes()).as_ref(),
        Ok(target)
    );
    let uri = format!("http://{}", target.host_field());
    let form = AbsoluteForm::parse(uri.as_bytes());
    assert_eq!(form.map(AbsoluteForm::into_target).as_ref(), Ok(target));
}
