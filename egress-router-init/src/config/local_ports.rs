//! TCP ports that belong to the pod itself.

use egress_config::{Diagnostic, Port, Protocol, Reader, Warning, variables};

use crate::redirect::{Mapping, Redirects};

/// Reads `EGRESS_LOCAL_PORTS`, sorted and without repetitions. When it is not
/// set, `admin` is the only local port. A redirect of that default port wins,
/// with a warning; a port that the user both redirects and calls local is an
/// error.
pub(super) fn read(
    reader: &mut Reader<'_>,
    admin: Option<Port>,
    redirects: &Redirects,
) -> Vec<Port> {
    if reader.text(variables::LOCAL_PORTS).is_none() {
        return default(reader, admin, redirects);
    }
    let mut ports: Vec<Port> = reader.words(variables::LOCAL_PORTS, str::parse);
    ports.sort_unstable();
    ports.dedup();
    for mapping in redirected(redirects, &ports) {
        reader.error(
            Diagnostic::new(
                variables::LOCAL_PORTS.name(),
                format_args!(
                    "EGRESS_DESTINATION line {} redirects that port; remove it there or here",
                    mapping.line()
                ),
            )
            .text(&mapping.port().to_string()),
        );
    }
    if let Some(admin) = admin
        && !ports.contains(&admin)
    {
        reader.warn(Warning::new(
            variables::LOCAL_PORTS.name(),
            format_args!(
                "the port {admin} of EGRESS_ADMIN_LISTEN is not among them, so health checks may not reach it; add it"
            ),
        ));
    }
    ports
}

fn default(reader: &mut Reader<'_>, admin: Option<Port>, redirects: &Redirects) -> Vec<Port> {
    let ports = Vec::from_iter(admin);
    let Some(mapping) = redirected(redirects, &ports).next() else {
        return ports;
    };
    reader.warn(
        Warning::new(
            variables::DESTINATION.name(),
            format_args!(
                "port {}/tcp is redirected, so the admin endpoint cannot be reached there; set EGRESS_ADMIN_LISTEN to another port, or to off",
                mapping.port()
            ),
        )
        .line(mapping.line()),
    );
    Vec::new()
}

/// The mappings of some TCP ports, which are sorted.
fn redirected<'a>(redirects: &'a Redirects, ports: &[Port]) -> impl Iterator<Item = &'a Mapping> {
    redirects.mappings().iter().filter(move |mapping| {
        mapping.protocol() == Protocol::Tcp && ports.binary_search(&mapping.port()).is_ok()
    })
}
