//! Checks unhealthy addresses in the background.

use std::future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use egress_config::Protocol;
use egress_runtime::dial::Dialer;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep_until;

use crate::target::Target;

/// Checks the addresses of `target` that are unhealthy until it is dropped.
pub(crate) async fn keep_checking(target: Arc<Target>, dialer: Dialer) {
    let protocol = target.key().protocol;
    let mut running = FuturesUnordered::new();
    loop {
        let next = loop {
            match target.begin_check() {
                Ok(address) => {
                    running.push(async move { (address, check(protocol, address, dialer).await) });
                }
                Err(next) => break next,
            }
        };
        tokio::select! {
            Some((address, alive)) = running.next() => target.checked(address, alive),
            () = target.became_unhealthy() => {}
            () = until(next) => {}
        }
    }
}

/// Over UDP nothing tells that nobody listens but the datagrams of clients:
/// they may try again.
async fn check(protocol: Protocol, address: SocketAddr, dialer: Dialer) -> bool {
    match protocol {
        Protocol::Tcp => dialer.dial(&[address]).await.is_ok(),
        Protocol::Udp => true,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => future::pending().await,
    }
}
