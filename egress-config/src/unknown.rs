//! Variables that look like ours but are not.

use crate::diagnostics::Warning;
use crate::environment::Environment;
use crate::variables::{Program, TABLE, VariableKind, VariableSpec};

/// Warns of every `EGRESS_*` variable that no program of the project reads,
/// naming the nearest one that this program reads. Variables of the sibling
/// programs are fine, since users share one block of variables; so are those
/// that Kubernetes sets for a Service whose name begins with `egress`.
pub(crate) fn unknown_variables(environment: &dyn Environment, program: Program) -> Vec<Warning> {
    let mut names = environment.names();
    names.sort_unstable();
    names
        .into_iter()
        .filter(|name| name.starts_with("EGRESS_"))
        .filter(|name| !TABLE.iter().any(|spec| spec.answers_to(name)))
        .filter(|name| !is_sibling(name, program))
        .filter(|name| !is_service_link(name, environment))
        .map(|name| {
            let advice = match nearest(&name, program) {
                Some(known) => {
                    format!("unknown variable, which has no effect; did you mean {known}?")
                }
                None => {
                    "unknown variable, which has no effect; --help lists the known ones".to_owned()
                }
            };
            Warning::new(name, advice)
        })
        .collect()
}

fn is_sibling(name: &str, program: Program) -> bool {
    Program::ALL
        .iter()
        .filter(|&&sibling| sibling != program)
        .any(|sibling| name.starts_with(sibling.prefix()))
}

/// Whether Kubernetes made the variable for a Service (the link variables of
/// "Discovering services" in its documentation): `X_SERVICE_HOST`,
/// `X_SERVICE_PORT`, `X_SERVICE_PORT_NAME`, `X_PORT`, `X_PORT_80_TCP`,
/// `X_PORT_80_TCP_PROTO`, `_PORT` and `_ADDR`.
fn is_service_link(name: &str, environment: &dyn Environment) -> bool {
    if name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
    {
        return true;
    }
    if name.ends_with("_PORT") && is_service_url(environment.var(name).ok().flatten()) {
        return true;
    }
    let base = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    let Some((rest, protocol)) = base.rsplit_once('_') else {
        return false;
    };
    let Some((rest, port)) = rest.rsplit_once('_') else {
        return false;
    };
    matches!(protocol, "TCP" | "UDP" | "SCTP")
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && rest.ends_with("_PORT")
}

/// `X_PORT` alone could be anybody's; its value tells.
fn is_service_url(value: Option<String>) -> bool {
    value.is_some_and(|value| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
    })
}

/// The variable of `program` whose name is nearest, unless nearly half of the
/// name would have to be typed anew.
fn nearest(name: &str, program: Program) -> Option<String> {
    TABLE
        .iter()
        .filter(|spec| spec.is_read_by(program))
        .flat_map(|spec| spellings(spec))
        .map(|known| (distance(name, &known), known))
        .min()
        .filter(|(distance, known)| distance * 5 <= known.len() * 2)
        .map(|(_, known)| known)
}

fn spellings(spec: &VariableSpec) -> Vec<String> {
    let name = spec.name().to_owned();
    match spec.kind() {
        VariableKind::Value => vec![name],
        VariableKind::List => vec![format!("{name}_FILE"), name],
    }
}

/// The number of bytes to insert, delete or replace to make `b` of `a`
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let replace = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replace.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MapEnvironment;

    fn warnings(names: &[&str]) -> Vec<String> {
        let environment = names
            .iter()
            .fold(MapEnvironment::new(), |environment, name| {
                environment.with(name, "1")
            });
        unknown_variables(&environment, Program::RouterInit)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_typing_error_is_answered_with_the_nearest_name() {
        for (typed, meant) in [
            ("EGRESS_SOURSE", "EGRESS_SOURCE"),
            ("EGRESS_DESTINATIONS", "EGRESS_DESTINATION"),
            ("EGRESS_DESTINATION_FIL", "EGRESS_DESTINATION_FILE"),
            ("EGRESS_SOURCE_FILE", "EGRESS_SOURCE"),
            ("EGRESS_ADMIN_PORT", "EGRESS_ADMIN_LISTEN"),
            ("EGRESS_ROUTER_MODUS", "EGRESS_ROUTER_MODE"),
        ] {
            assert_eq!(
                warnings(&[typed]),
                [format!(
                    "{typed}: unknown variable, which has no effect; did you mean {meant}?"
                )]
            );
        }
        assert_eq!(
            warnings(&["EGRESS_COMPLETELY_DIFFERENT_THING"]),
            [
                "EGRESS_COMPLETELY_DIFFERENT_THING: unknown variable, which has no effect; --help lists the known ones"
            ]
        );
    }

    #[test]
    fn variables_of_the_programs_are_known() {
        let names: Vec<&str> = TABLE.iter().map(|spec| spec.name()).collect();
        assert_eq!(warnings(&names), Vec::<String>::new());
        assert_eq!(
            warnings(&[
                "EGRESS_DESTINATION_FILE",
                "EGRESS_HTTP_PROXY_DESTINATION",
                "EGRESS_HTTP_PROXY_ANYTHING",
                "EGRESS_DNS_PROXY_DEBUG",
                "HTTP_PROXY",
                "PATH",
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn service_links_are_not_ours() {
        let environment = [
            ("EGRESS_1_SERVICE_HOST", "10.96.0.7"),
            ("EGRESS_1_SERVICE_PORT", "80"),
            ("EGRESS_1_SERVICE_PORT_HTTP", "80"),
            ("EGRESS_1_PORT", "tcp://10.96.0.7:80"),
            ("EGRESS_1_PORT_80_TCP", "tcp://10.96.0.7:80"),
            ("EGRESS_1_PORT_80_TCP_PROTO", "tcp"),
            ("EGRESS_1_PORT_80_TCP_PORT", "80"),
            ("EGRESS_1_PORT_80_TCP_ADDR", "10.96.0.7"),
            ("EGRESS_SERVICE_HOST", "10.96.0.8"),
            ("EGRESS_PORT", "udp://10.96.0.8:53"),
            ("EGRESS_PORT_53_UDP_ADDR", "10.96.0.8"),
        ]
        .into_iter()
        .fold(MapEnvironment::new(), |environment, (name, value)| {
            environment.with(name, value)
        });
        assert_eq!(unknown_variables(&environment, Program::RouterInit), []);
    }
}
