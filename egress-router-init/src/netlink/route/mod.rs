//! Links, addresses, routes and rules: rtnetlink(7).

mod change;
mod convert;
mod in_use;
mod observe;
mod watch;

use std::io;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

pub use self::{change::ChangeError, observe::ObserveError, watch::Changes};

/// A connection to the network namespace of the thread that opened it.
///
/// Needs a tokio runtime with I/O enabled.
#[derive(Debug)]
pub struct RouteSocket {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for RouteSocket {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl RouteSocket {
    /// Opens the connection.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub fn open() -> io::Result<Self> {
        // Strict checking, so that a kernel that cannot dump another
        // namespace says so instead of dumping ours.
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        connection.set_forward_done(true);
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Everything a dump answers; once more when the kernel says that things
    /// changed meanwhile.
    async fn dump(&self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        const ATTEMPTS: usize = 5;
        let mut answers = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            answers.clear();
            let mut interrupted = false;
            let mut stream = self
                .handle
                .clone()
                .request(message)
                .map_err(io::Error::other)?;
            while let Some(answer) = stream.next().await {
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    // A dump that fails says so at its end.
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Overrun(_) => interrupted = true,
                    _ => {}
                }
            }
            if !interrupted {
                break;
            }
        }
        Ok(answers)
    }

    /// One change, acknowledged.
    async fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut stream = self
            .handle
            .clone()
            .request(message)
            .map_err(io::Error::other)?;
        while let Some(answer) = stream.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}
