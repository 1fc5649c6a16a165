//! Why there is no plan, each with what to do about it.

use std::net::IpAddr;

use egress_config::AddressFamily;

/// A configuration that this namespace or node cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing says which interface is the pod's.
    #[error("cannot tell the interface of the pod network: there is no default route, and {}; set EGRESS_POD_INTERFACE", list(.candidates))]
    PodInterfaceUnknown {
        /// Interfaces with an address.
        candidates: Vec<String>,
    },
    /// The named pod interface does not exist.
    #[error("EGRESS_POD_INTERFACE: there is no interface \"{name}\" in the pod; {}", list(.present))]
    PodInterfaceMissing {
        /// The name.
        name: String,
        /// What there is.
        present: Vec<String>,
    },
    /// One interface cannot be both.
    #[error(
        "the egress interface and the pod interface are both \"{name}\"; set EGRESS_INTERFACE or EGRESS_POD_INTERFACE"
    )]
    SameInterface {
        /// The name.
        name: String,
    },
    /// More than one could be the egress interface.
    #[error("cannot tell the egress interface: {} could each be it; set EGRESS_INTERFACE", .candidates.join(", "))]
    EgressAmbiguous {
        /// The candidates.
        candidates: Vec<String>,
    },
    /// It is not there and may not be made.
    #[error(
        "Cannot find device \"{name}\": the pod has no egress interface and EGRESS_MACVLAN_PARENT=off forbids to create one; add the annotation of the network (OpenShift: pod.network.openshift.io/assign-macvlan: \"true\"; Multus: k8s.v1.cni.cncf.io/networks), or unset EGRESS_MACVLAN_PARENT"
    )]
    CreationOff {
        /// The name it would have.
        name: String,
    },
    /// It is not there and the node cannot be seen.
    #[error(
        "Cannot find device \"{name}\": the pod has no egress interface, and none can be created because {reason}; add the annotation of the network (OpenShift: pod.network.openshift.io/assign-macvlan: \"true\"; Multus: k8s.v1.cni.cncf.io/networks)"
    )]
    NodeHidden {
        /// The name it would have.
        name: String,
        /// Why the node cannot be seen.
        reason: String,
    },
    /// The node has no interface in the gateway's network.
    #[error("Cannot find device \"{name}\": no interface of the node has the gateway {} in its network ({}); set EGRESS_MACVLAN_PARENT to the node's interface on the physical network, or correct EGRESS_GATEWAY", any_of(.gateways), list(.seen))]
    NoParent {
        /// The name it would have.
        name: String,
        /// The gateways.
        gateways: Vec<IpAddr>,
        /// The node's addresses.
        seen: Vec<String>,
    },
    /// The named parent does not exist.
    #[error("EGRESS_MACVLAN_PARENT: the node has no interface \"{name}\"; {}", list(.present))]
    ParentMissing {
        /// The name.
        name: String,
        /// What there is.
        present: Vec<String>,
    },
    /// The parent belongs to a bridge or bond.
    #[error(
        "EGRESS_MACVLAN_PARENT: the node's interface \"{name}\" is a port of \"{controller}\", which takes all its traffic; set EGRESS_MACVLAN_PARENT={controller}"
    )]
    ParentIsPort {
        /// The interface.
        name: String,
        /// The bridge or bond.
        controller: String,
    },
    /// The node itself has the source address.
    #[error(
        "EGRESS_SOURCE: the address {address} belongs to the node itself (interface {link}, {mac}); reserve another address for the router"
    )]
    NodeOwnsAddress {
        /// The address.
        address: IpAddr,
        /// The node's interface.
        link: String,
        /// Its hardware address.
        mac: String,
    },
    /// IPv6 cannot be forwarded and we may not change that.
    #[error(
        "IPv6 redirects need net.ipv6.conf.all.forwarding=1, which is off, and /proc/sys is read-only; set it in the pod (spec.securityContext.sysctls, which the kubelet must allow), or run the container privileged"
    )]
    Ipv6ForwardingOff,
    /// The family is off in this pod.
    #[error(
        "EGRESS_SOURCE: {family} address {address}, but {family} is off in this pod; enable it in the cluster's pod network (net.ipv6.conf.all.disable_ipv6=0), or remove the address"
    )]
    FamilyOff {
        /// The family.
        family: AddressFamily,
        /// The configured address.
        address: IpAddr,
    },
    /// A parent in passthru mode, or a link that is no macvlan, was named.
    #[error(
        "the egress interface \"{name}\" is not an Ethernet interface and cannot carry an address of the physical network; set EGRESS_INTERFACE to another"
    )]
    NotEthernet {
        /// The name.
        name: String,
    },
}

pub(super) fn any_of(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(IpAddr::to_string)
        .collect::<Vec<_>>()
        .join(" or ")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "there are none".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    }
}
