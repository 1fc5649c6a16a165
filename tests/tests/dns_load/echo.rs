//! The other end of all connections: a process of its own, because one process
//! may not have as many files as both ends take.

use std::{net::Ipv4Addr, process::ExitCode};

use egress_lab::allow_open_files;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Argument that makes this program the server.
pub(crate) const ROLE: &str = "--echo";

/// What it says on stdout when it serves.
pub(crate) const READY: &str = "serving";

/// Files for as many connections as any test makes.
const FILES: u64 = 10_000;

pub(crate) fn main() -> ExitCode {
    allow_open_files(FILES).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7)).await.unwrap();
        println!("{READY}");
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(echoes(stream));
        }
    })
}

async fn echoes(mut stream: TcpStream) -> std::io::Result<()> {
    // Small, because there are thousands of them.
    let mut buffer = [0; 256];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
