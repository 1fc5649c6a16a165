//! Requests at full rate, none of which may fail.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use egress_lab::Reply;

use crate::{
    scene::{Scene, get},
    servers::ANSWER,
};

const CLIENTS: usize = 3;
/// Requests on one connection before the next is opened.
const PER_CONNECTION: usize = 20;
/// No answer takes as long as a packet takes to be sent again, unless the
/// machine is busy elsewhere.
const DEADLINE: Duration = Duration::from_secs(5);

/// Clients that ask over and over.
pub(crate) struct Requests {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<usize, String>>>,
}

impl Requests {
    pub(crate) fn start(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|_| {
            let (stop, netns) = (Arc::clone(&stop), scene.lab.client().netns().clone());
            let proxy = scene.address();
            thread::spawn(move || {
                netns.enter().map_err(|error| error.to_string())?;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count +=
                        connection(proxy).map_err(|error| format!("after {count}: {error}"))?;
                }
                Ok(count)
            })
        });
        Self {
            clients: clients.collect(),
            stop,
        }
    }

    /// Ends them, and returns how many requests were answered.
    ///
    /// # Panics
    /// When one failed.
    #[track_caller]
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        counts.map(Result::unwrap).sum()
    }
}

fn connection(proxy: SocketAddr) -> Result<usize, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&proxy, DEADLINE).map_err(failed)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
    let mut answers = BufReader::new(stream.try_clone().map_err(failed)?);
    for _ in 0..PER_CONNECTION {
        stream.write_all(get("a.test").as_bytes()).map_err(failed)?;
        match Reply::read(&mut answers, "GET").map_err(failed)? {
            Some(reply) if reply.status == 200 && reply.text() == ANSWER => {}
            other => return Err(format!("{other:?}")),
        }
    }
    Ok(PER_CONNECTION)
}
