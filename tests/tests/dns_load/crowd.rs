//! Clients by the thousand.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use egress_lab::NetNs;

/// So many connect at a time.
const AT_A_TIME: usize = 32;

/// How long a word may take there and back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Open connections to an echo, each of which has carried a word.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    pub(crate) fn open(netns: &NetNs, to: SocketAddr, count: usize) -> Self {
        let some = |from: usize| {
            netns.run(|| {
                let connect = |number| open(to, number);
                let numbers = (from..count).step_by(AT_A_TIME);
                numbers.map(connect).collect::<io::Result<Vec<_>>>()
            })
        };
        let streams = thread::scope(|scope| {
            let some = &some;
            let tasks: Vec<_> = (0..AT_A_TIME.min(count))
                .map(|from| scope.spawn(move || some(from)))
                .collect();
            let opened = tasks.into_iter().map(|task| task.join().unwrap().unwrap());
            opened.flatten().collect()
        });
        Self(streams)
    }

    /// Every connection carries a word and brings it back.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub(crate) fn speak(&self) {
        for (number, mut stream) in self.0.iter().enumerate() {
            let result = stream.write_all(&number.to_be_bytes());
            assert!(result.is_ok(), "connection {number}: {result:?}");
        }
        for (number, stream) in self.0.iter().enumerate() {
            let heard = hear(stream);
            assert!(
                heard.as_ref().is_ok_and(|heard| *heard == number),
                "{number}: {heard:?}"
            );
        }
    }

    /// Waits until the other side has ended every connection.
    ///
    /// # Panics
    /// When one stays open.
    #[track_caller]
    pub(crate) fn await_end(&self) {
        for (number, mut stream) in self.0.iter().enumerate() {
            match stream.read(&mut [0]) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                other => panic!("connection {number}: {other:?}"),
            }
        }
    }
}

fn open(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&number.to_be_bytes())?;
    match hear(&stream)? {
        heard if heard == number => Ok(stream),
        heard => Err(io::Error::other(format!("{heard} for {number}"))),
    }
}

fn hear(mut stream: &TcpStream) -> io::Result<usize> {
    let mut word = [0; size_of::<usize>()];
    stream.read_exact(&mut word)?;
    Ok(usize::from_be_bytes(word))
}
