//! The outside: servers that answer HTTP, and HTTPS, with whom they saw.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use egress_lab::{Host, Identity, Seen, Worker, harness::libtest_mimic::Failed};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Ports with HTTP.
const PLAIN: [u16; 4] = [80, 100, 2222, 5432];

/// The port with HTTPS.
const TLS: u16 = 443;

/// A running server on all of a host's addresses; it ends when dropped. The
/// payload of [`Seen`] is the path that was asked for.
pub(crate) struct Site {
    seen: Arc<Mutex<Vec<Seen>>>,
    _worker: Worker,
}

impl Site {
    pub(crate) fn start(host: &Host, identity: &Identity) -> Result<Self, Failed> {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(identity.server(&["http/1.1"])?));
        let (addresses, log) = (host.addresses().to_vec(), seen.clone());
        let worker = Worker::start(host.netns(), async move || {
            for address in addresses {
                for port in PLAIN {
                    let listener = TcpListener::bind((address, port)).await?;
                    tokio::spawn(serve(listener, None, log.clone()));
                }
                let listener = TcpListener::bind((address, TLS)).await?;
                tokio::spawn(serve(listener, Some(acceptor.clone()), log.clone()));
            }
            Ok(())
        })?;
        Ok(Self {
            seen,
            _worker: worker,
        })
    }

    /// All that was answered so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, log: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((stream, client)) = listener.accept().await {
        let (tls, log) = (tls.clone(), log.clone());
        tokio::spawn(async move {
            let server = stream.local_addr()?;
            match tls {
                Some(acceptor) => {
                    answer(acceptor.accept(stream).await?, server, client, &log).await
                }
                None => answer(stream, server, client, &log).await,
            }
        });
    }
}

/// One request per connection.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    client: SocketAddr,
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let seen = Seen {
        server,
        client,
        payload: head.split(' ').nth(1).unwrap_or_default().to_owned(),
    };
    let body = format!("{seen}\n");
    log.lock().unwrap().push(seen);
    let length = body.len();
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
