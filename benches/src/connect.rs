//! Time to open a connection through the router.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_lab::Family;
use socket2::{Domain, Socket, Type};

use crate::bed::{Bed, RouterPod, server_socket};
use crate::cost::succeeded;
use crate::mappings::Mappings;
use crate::peer::{Kind, Peer};
use crate::samples::Samples;
use crate::settings::Settings;

/// Longer than a lost packet costs; who needs longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// Connections to warm caches and neighbours up.
const WARM_UP: usize = 50;

/// Which mapping of a list the connections go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    First,
    Last,
}

/// Opening connections to one mapping of one rule set.
pub(crate) struct Connect {
    /// Whose rules; `None` for ours.
    pub(crate) peer: Option<Kind>,
    /// Length of the list.
    pub(crate) size: usize,
    pub(crate) position: Position,
    pub(crate) outcome: Result<Connects, String>,
}

/// What it took.
#[derive(Default)]
pub(crate) struct Connects {
    /// Median of each turn, in seconds.
    pub(crate) medians: Samples,
    /// Each connect(2), in seconds.
    pub(crate) all: Samples,
    /// Connections opened and closed in a second, by one thread, in each turn.
    pub(crate) per_second: Samples,
}

/// A mapping to connect to.
struct Target {
    to: SocketAddr,
    connect: Connect,
}

/// A router for each rule set, then everybody in turn.
pub(crate) fn measure(bed: &mut Bed, peers: &[Peer], settings: &Settings) -> Result<Vec<Connect>> {
    let listener = bed
        .server()
        .netns()
        .run(|| listen(settings.connects + WARM_UP))?;
    // A router is gone with its pod.
    let (mut routers, mut targets) = (Vec::new(), Vec::new());
    for size in &settings.sizes {
        for peer in std::iter::once(None).chain(peers.iter().map(Some)) {
            let name = format!(
                "{} {size}",
                peer.map_or("router".to_owned(), |p| p.kind().to_string())
            );
            let router = bed.add_router_pod(&name)?;
            targets.extend(prepare(bed, &router, peer, *size)?);
            routers.push(router);
        }
    }
    let client = bed.client().netns().clone();
    for target in &mut targets {
        target.turn(&client, &listener, WARM_UP, |_, turn| drop(turn));
    }
    for round in 0..settings.connect_rounds {
        // To and fro, so that nobody always comes after the same other.
        let order: Vec<&mut Target> = match round % 2 {
            0 => targets.iter_mut().collect(),
            _ => targets.iter_mut().rev().collect(),
        };
        for target in order {
            target.turn(&client, &listener, settings.connects, Connects::add);
        }
    }
    Ok(targets.into_iter().map(|target| target.connect).collect())
}

/// A server that is in nobody's way: connections queue until they are thrown
/// away between two turns.
fn listen(backlog: usize) -> Result<TcpListener> {
    let address: SocketAddr = server_socket()?.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog)?)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a pod a router with a list of `size`, by our rules or a peer's.
fn prepare(bed: &Bed, router: &RouterPod, peer: Option<&Peer>, size: usize) -> Result<Vec<Target>> {
    let mappings = Mappings::new(size, server_socket()?).context("no such length of list")?;
    let loaded = load(bed, router, peer, &mappings);
    let target = |position, port| Target {
        to: router.pod().socket(Family::Ipv4, port),
        connect: Connect {
            peer: peer.map(Peer::kind),
            size,
            position,
            outcome: loaded
                .as_ref()
                .map(|()| Connects::default())
                .map_err(|e| format!("{e:#}")),
        },
    };
    let last = target(Position::Last, mappings.last_port());
    Ok(match size {
        10 => vec![target(Position::First, mappings.first_port()), last],
        _ => vec![last],
    })
}

fn load(bed: &Bed, router: &RouterPod, peer: Option<&Peer>, mappings: &Mappings) -> Result<()> {
    let list = bed.write("connect", &mappings.lines())?;
    succeeded(router.init(&list).run()?)?;
    if let Some(peer) = peer {
        // Its links, addresses and routes are ours.
        router.delete_table()?;
        let file = bed.folder().join("connect-rules");
        let script = peer.write(mappings, router.source(), file)?;
        peer.load(router.pod().netns(), &script)?;
    }
    Ok(())
}

impl Target {
    /// Some connections, one after the other.
    fn turn(
        &mut self,
        client: &egress_lab::NetNs,
        listener: &TcpListener,
        count: usize,
        keep: impl FnOnce(&mut Connects, Turn),
    ) {
        let Ok(connects) = &mut self.connect.outcome else {
            return;
        };
        match client.run(|| open(self.to, count)) {
            Ok(turn) => keep(connects, turn),
            Err(error) => self.connect.outcome = Err(format!("{error:#}")),
        }
        drain(listener);
    }
}

/// One turn's connections.
struct Turn {
    times: Samples,
    per_second: f64,
}

impl Connects {
    fn add(&mut self, turn: Turn) {
        self.medians.push(turn.times.median());
        self.per_second.push(turn.per_second);
        self.all.append(turn.times);
    }
}

fn open(to: SocketAddr, count: usize) -> Result<Turn> {
    let mut times = Samples::default();
    let started = Instant::now();
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        // Closed by a reset: its port is free at once.
        socket.set_linger(Some(Duration::ZERO))?;
        let opening = Instant::now();
        socket
            .connect_timeout(&to.into(), DEADLINE)
            .with_context(|| format!("connecting to {to}"))?;
        times.push_time(opening.elapsed());
    }
    let per_second = f64::from(u32::try_from(count)?) / started.elapsed().as_secs_f64();
    Ok(Turn { times, per_second })
}

/// Throws the connections away that came in.
fn drain(listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // A client that reset its connection meanwhile.
            Err(_) => {}
        }
    }
}
