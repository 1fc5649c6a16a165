//! The links that the router works on.

use egress_config::{Diagnostic, InterfaceName, Reader, parse_link, variables};
use serde::Serialize;

/// `EGRESS_MACVLAN_PARENT`: where to create the egress interface when the pod
/// has none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanParent {
    /// On the node's interface whose subnet holds the gateway.
    Auto,
    /// Nowhere: the interface comes from Multus or the CNI.
    Off,
    /// On this interface of the node.
    Named(InterfaceName),
}

/// The three interface variables, of which none need be set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interfaces {
    pub(super) egress: Option<InterfaceName>,
    pub(super) pod: Option<InterfaceName>,
    pub(super) macvlan_parent: MacvlanParent,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Interfaces {
    let egress = reader.value(variables::INTERFACE, parse_link);
    let macvlan_parent = reader
        .value(variables::MACVLAN_PARENT, |text| match text {
            "off" => Ok(MacvlanParent::Off),
            name => parse_link(name).map(MacvlanParent::Named),
        })
        .unwrap_or(MacvlanParent::Auto);
    let pod = reader.value(variables::POD_INTERFACE, parse_link);
    if let (Some(name), Some(pod)) = (&egress, &pod)
        && name == pod
    {
        reader.error(
            Diagnostic::new(
                variables::INTERFACE.name(),
                "is EGRESS_POD_INTERFACE as well; the pod network and the physical network need one interface each",
            )
            .text(name.as_str()),
        );
    }
    Interfaces {
        egress,
        pod,
        macvlan_parent,
    }
}
