//! Changes as they happen: `ip monitor link address route rule`.

use std::io;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

/// Tells that something in the namespace changed, not what: whoever asks looks
/// at all of it.
pub struct Changes {
    messages: BoxStream<'static, ()>,
    connection: JoinHandle<()>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Changes {
    /// Subscribes to the network namespace of the calling thread. Needs a
    /// tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub fn subscribe() -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])?;
        Ok(Self {
            messages: messages.map(|_| ()).boxed(),
            connection: tokio::spawn(connection),
        })
    }

    /// Waits for a change. Cancel safe. Never returns once the socket is gone,
    /// which it is not while the program runs.
    pub async fn next(&mut self) {
        if self.messages.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
