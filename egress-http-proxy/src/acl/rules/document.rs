//! Rules from an `EgressNetworkPolicy` document of OpenShift.

use egress_config::{Diagnostic, Diagnostics, DomainName, List, parse_network};
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rule::{Rule, RuleStore, Subject};
use super::{Action, PortRange};

const KIND: &str = "EgressNetworkPolicy";

/// Whether a text is a document rather than a list of lines: its first line
/// opens a JSON object or gives one of the top-level keys in YAML.
pub(super) fn is_document(text: &str) -> bool {
    let Some(first) = text
        .lines()
        .map(str::trim_end)
        .find(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
    else {
        return false;
    };
    if let Some(rest) = first.trim_start().strip_prefix('{') {
        // A brace may open a glob, too: `{api,www}.example.com`.
        let rest = rest.trim_start();
        return rest.is_empty() || rest.starts_with(['"', '}']);
    }
    let yaml_key = |key: &str| {
        first
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(':'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
    };
    first == "---"
        || ["apiVersion", "kind", "metadata", "spec", "items", "status"]
            .into_iter()
            .any(yaml_key)
}

/// How messages call an entry; entries are counted from 1 like lines.
pub(super) fn entry_name(number: u32) -> String {
    format!("spec.egress[{}]", number.saturating_sub(1))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
    spec: Option<Spec>,
    items: Option<Vec<Document>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    egress: Vec<Egress>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    #[serde(rename = "type")]
    action: EgressType,
    to: Peer,
}

#[derive(Clone, Copy, Deserialize)]
enum EgressType {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Peer {
    cidr_selector: Option<String>,
    dns_name: Option<String>,
}

/// Reads the document of a list. What is wrong with it is reported.
pub(super) fn read(list: &List, diagnostics: &mut Diagnostics) -> RuleStore {
    let mut store = RuleStore::default();
    match parse(list.text()) {
        Ok(egress) => {
            for (egress, number) in egress.iter().zip(1..) {
                if let Err(message) = add(egress, number, &mut store) {
                    diagnostics.error(
                        Diagnostic::new(list.variable().to_owned(), message)
                            .text(&entry_name(number)),
                    );
                }
            }
        }
        Err(message) => {
            diagnostics.error(Diagnostic::new(list.variable().to_owned(), message));
        }
    }
    store
}

fn parse(text: &str) -> Result<Vec<Egress>, String> {
    let read = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    };
    let document: Document = read.map_err(|error| {
        let cause = error.lines().next().unwrap_or_default();
        format!("is no {KIND} document: {cause}; correct it, or write one rule a line")
    })?;
    policy(document)?
        .spec
        .map(|spec| spec.egress)
        .ok_or_else(|| format!("the {KIND} has no spec; write spec.egress"))
}

/// The one policy of a document or of a list of documents.
fn policy(document: Document) -> Result<Document, String> {
    if document.kind == KIND {
        return match document.api_version.as_deref() {
            None | Some("network.openshift.io/v1" | "v1") => Ok(document),
            Some(other) => Err(format!(
                "'{other}' is no apiVersion of {KIND}; write network.openshift.io/v1"
            )),
        };
    }
    if document.kind != "List" && document.kind != "EgressNetworkPolicyList" {
        return Err(format!(
            "the kind is '{}'; give one {KIND} document, or one rule a line",
            document.kind
        ));
    }
    let mut items = document.items.unwrap_or_default().into_iter();
    match (items.next(), items.next()) {
        (Some(item), None) if item.kind == KIND => policy(item),
        (Some(item), None) => Err(format!("the list holds a '{}'; give one {KIND}", item.kind)),
        (None, _) => Err(format!("the list is empty; give one {KIND}")),
        (Some(_), Some(_)) => Err(format!("the list has more than one item; give one {KIND}")),
    }
}

fn add(egress: &Egress, number: u32, store: &mut RuleStore) -> Result<(), String> {
    let action = match egress.action {
        EgressType::Allow => Action::Allow,
        EgressType::Deny => Action::Deny,
    };
    let mut push = |subject| {
        let rule = Rule {
            line: number,
            action,
            ports: PortRange::ALL,
            subject,
        };
        match store.push(rule) {
            Some(_) => Ok(()),
            None => Err("the document is too long; use wider rules".to_owned()),
        }
    };
    match (&egress.to.cidr_selector, &egress.to.dns_name) {
        (Some(cidr), None) => {
            let network: IpNet =
                parse_network(cidr).map_err(|error| format!("cidrSelector '{cidr}': {error}"))?;
            push(Subject::Network(network))
        }
        (None, Some(name)) => {
            let name: DomainName = name.parse().map_err(|error| {
                format!("dnsName '{name}': {error}; it is one name without wildcards")
            })?;
            push(Subject::Name(name.as_str()))
        }
        (Some(_), Some(_)) => {
            Err("has both cidrSelector and dnsName; write one entry for each".to_owned())
        }
        (None, None) => Err("has neither cidrSelector nor dnsName; write one of them".to_owned()),
    }
}
