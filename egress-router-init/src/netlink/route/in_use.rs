//! When an address that was added is in use.

use std::net::Ipv6Addr;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::time::timeout;
use tracing::warn;

use super::{Changes, RouteSocket};

/// A kernel that is slower than this has other troubles.
const LIMIT: Duration = Duration::from_secs(2);

impl RouteSocket {
    /// Waits until the kernel uses an IPv6 address.
    ///
    /// It acknowledges the address first, and lets a worker join the group in
    /// which neighbours ask for it and add its local route, which takes the
    /// worker long on a busy node (`addrconf_dad_work`). The first packets
    /// that are sent to the address before are lost, the gateway's word where
    /// it is among them: connections would hang for a second.
    pub(super) async fn await_use(&self, address: Ipv6Addr) {
        if self.is_local(address).await {
            return;
        }
        // Subscribed before the next look, so that no change falls in between.
        let Ok(mut changes) = Changes::subscribe() else {
            return;
        };
        let wait = async {
            while !self.is_local(address).await {
                changes.next().await;
            }
        };
        if timeout(LIMIT, wait).await.is_err() {
            warn!("the kernel does not take packets for {address} in yet");
        }
    }

    /// Whether `ip -6 route get ADDRESS` says `local`.
    async fn is_local(&self, address: Ipv6Addr) -> bool {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet6;
        request.header.destination_prefix_length = 128;
        request.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet6(address))];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(request));
        message.header.flags = NLM_F_REQUEST;
        let Ok(mut answers) = self.handle.clone().request(message) else {
            return false;
        };
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route))) => {
                route.header.kind == RouteType::Local
            }
            // No route at all.
            _ => false,
        }
    }
}
