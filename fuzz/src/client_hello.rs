//! What the fuzz target of the ClientHello parser checks. The tests of the
//! HTTP proxy replay its corpus on stable.

use egress_http_proxy::acl::ClientHello;

/// The first bytes of a connection: more bytes never take back what was said,
/// and nothing is waited for beyond the largest ClientHello.
pub fn client_hello(data: &[u8]) {
    let whole = ClientHello::parse(data);
    if data.len() > 64 * 1024 + 1024 {
        assert_ne!(whole, ClientHello::Partial);
    }
    if let ClientHello::ServerName(Some(name)) = &whole {
        assert_eq!(name.as_str().parse().as_ref(), Ok(name));
    }
    for end in [0, 1, 5, 9, data.len() / 2, data.len().saturating_sub(1)] {
        let Some(start) = data.get(..end) else {
            continue;
        };
        match ClientHello::parse(start) {
            ClientHello::Partial => {}
            said => assert_eq!(said, whole),
        }
    }
}
