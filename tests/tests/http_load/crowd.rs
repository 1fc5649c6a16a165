//! Clients by the thousand.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use crate::{
    scene::{PATIENCE, Scene},
    servers::ECHO,
};

/// So many connect at a time.
const AT_A_TIME: usize = 64;

/// Open connections of clients.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens tunnels to the server that returns what it is sent.
    pub(crate) fn tunnels(scene: &Scene, host: &str, count: usize) -> Self {
        let target = format!("{host}:{ECHO}");
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        Self::open(
            scene,
            count,
            &request,
            "HTTP/1.1 200 Connection established\r\n\r\n",
        )
    }

    /// Opens connections that send a part of a head.
    pub(crate) fn half_heads(scene: &Scene, count: usize) -> Self {
        let half = "GET http://a.test/ HTTP/1.1\r\nHost: a.te";
        Self::open(scene, count, half, "")
    }

    fn open(scene: &Scene, count: usize, says: &str, hears: &'static str) -> Self {
        let proxy = scene.address();
        let connect = async move |says: &str| {
            let mut stream = tokio::net::TcpStream::connect(proxy).await?;
            stream.write_all(says.as_bytes()).await?;
            let mut heard = vec![0; hears.len()];
            stream.read_exact(&mut heard).await?;
            if heard != hears.as_bytes() {
                return Err(io::Error::other(
                    String::from_utf8_lossy(&heard).into_owned(),
                ));
            }
            stream.into_std()
        };
        let open = async {
            let mut tasks = JoinSet::new();
            for task in 0..AT_A_TIME {
                let says = says.to_owned();
                tasks.spawn(async move {
                    let mut streams = Vec::new();
                    for _ in (task..count).step_by(AT_A_TIME) {
                        streams.push(connect(&says).await?);
                    }
                    Ok::<_, io::Error>(streams)
                });
            }
            let mut streams = Vec::new();
            while let Some(opened) = tasks.join_next().await {
                streams.extend(opened.unwrap().unwrap());
            }
            streams
        };
        let streams = scene.lab.client().netns().run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(open)
        });
        for stream in &streams {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self(streams)
    }

    /// Every tunnel carries a word and brings it back.
    ///
    /// # Panics
    /// When one does not.
    #[track_caller]
    pub(crate) fn speak(&self) {
        for (number, mut stream) in self.0.iter().enumerate() {
            let result = stream.write_all(&number.to_be_bytes());
            assert!(result.is_ok(), "tunnel {number}: {result:?}");
        }
        for (number, mut stream) in self.0.iter().enumerate() {
            let mut word = [0; size_of::<usize>()];
            let result = stream.read_exact(&mut word);
            assert!(result.is_ok(), "tunnel {number}: {result:?}");
            assert_eq!(usize::from_be_bytes(word), number);
        }
    }

    /// Waits until the other side has ended every connection, and returns how
    /// many of them it told something before.
    ///
    /// # Panics
    /// When one stays open.
    #[track_caller]
    pub(crate) fn await_end(&self) -> usize {
        let mut told = 0;
        for (number, mut stream) in self.0.iter().enumerate() {
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => panic!("connection {number}: {error}"),
            }
            told += usize::from(!rest.is_empty());
        }
        told
    }

    /// Whether every connection is open and silent.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        for (number, stream) in self.0.iter().enumerate() {
            stream.set_nonblocking(true).unwrap();
            let result = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            let idle = result.as_ref().err().map(io::Error::kind);
            assert_eq!(
                idle,
                Some(io::ErrorKind::WouldBlock),
                "{number}: {result:?}"
            );
        }
    }
}

/// As milliseconds, for a person to read.
pub(crate) fn shown(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
