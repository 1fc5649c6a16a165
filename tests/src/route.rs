//! Routes: what `ip route` does.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    route::{RouteMessage, RouteScope},
};
use rtnetlink::RouteMessageBuilder;

use crate::{
    error::{Context, Result},
    netns::NetNs,
};

/// A route, written as `ip route add` wants it.
#[derive(Debug, Clone)]
pub struct Route {
    to: IpNet,
    via: Option<IpAddr>,
    dev: Option<String>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    table: u32,
    onlink: bool,
}

impl Route {
    /// A route to a network, in the main table.
    #[must_use]
    pub fn to(network: impl Into<IpNet>) -> Self {
        Self {
            to: network.into().trunc(),
            via: None,
            dev: None,
            source: None,
            metric: None,
            table: u32::from(netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN),
            onlink: false,
        }
    }

    /// `default via GATEWAY`
    #[must_use]
    pub fn default_via(gateway: IpAddr) -> Self {
        let everywhere = match gateway {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        Self::to(everywhere).via(gateway)
    }

    /// `via GATEWAY`
    #[must_use]
    pub fn via(mut self, gateway: IpAddr) -> Self {
        self.via = Some(gateway);
        self
    }

    /// `dev NAME`
    #[must_use]
    pub fn dev(mut self, name: &str) -> Self {
        self.dev = Some(name.to_owned());
        self
    }

    /// `src ADDRESS`
    #[must_use]
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    /// `metric NUMBER`
    #[must_use]
    pub fn metric(mut self, metric: u32) -> Self {
        self.metric = Some(metric);
        self
    }

    /// `table NUMBER`
    #[must_use]
    pub fn table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    /// `onlink`
    #[must_use]
    pub fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }
}

impl NetNs {
    /// `ip route add ROUTE`
    ///
    /// # Errors
    /// When it exists, or its gateway or link does not.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        let message = self.route_message(route)?;
        self.netlink(|netlink| {
            netlink.change(Message::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
        })
        .context(|| format!("adding route to {} in {}", route.to, self.name()))
    }

    /// `ip route del ROUTE`
    ///
    /// # Errors
    /// When there is no such route.
    pub fn delete_route(&self, route: &Route) -> Result<()> {
        let message = self.route_message(route)?;
        self.netlink(|netlink| netlink.change(Message::DelRoute(message), 0))
            .context(|| format!("deleting route to {} in {}", route.to, self.name()))
    }

    fn route_message(&self, route: &Route) -> Result<RouteMessage> {
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .table_id(route.table)
            .destination_prefix(route.to.addr(), route.to.prefix_len())
            .map_err(io::Error::other)
            .context(|| format!("route to {}", route.to))?;
        if let Some(gateway) = route.via {
            builder = builder
                .gateway(gateway)
                .map_err(io::Error::other)
                .context(|| format!("route via {gateway}"))?;
        } else if matches!(route.to, IpNet::V4(_)) {
            builder = builder.scope(RouteScope::Link);
        }
        if let Some(source) = route.source {
            builder = builder
                .pref_source(source)
                .map_err(io::Error::other)
                .context(|| format!("route from {source}"))?;
        }
        if let Some(name) = &route.dev {
            builder = builder.output_interface(self.link_index(name)?);
        }
        if let Some(metric) = route.metric {
            builder = builder.priority(metric);
        }
        if route.onlink {
            builder = builder.onlink();
        }
        Ok(builder.build())
    }
}
