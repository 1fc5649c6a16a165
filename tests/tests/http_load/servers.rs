//! The other end of all connections: a process of its own, because one process
//! may not have as many files as both ends take.

use std::{net::Ipv4Addr, process::ExitCode};

use egress_lab::allow_open_files;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Argument that makes this program the servers.
pub(crate) const ROLE: &str = "--servers";

/// What it says on stdout when it serves.
pub(crate) const READY: &str = "serving";

/// Returns whatever it is sent.
pub(crate) const ECHO: u16 = 7;
/// Answers every request with 200.
pub(crate) const HTTP: u16 = 80;

/// What the answer says.
pub(crate) const ANSWER: &str = "ok\n";

/// Files for as many connections as any test makes.
const FILES: u64 = 12_000;

pub(crate) fn main() -> ExitCode {
    allow_open_files(FILES).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let echo = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO))
            .await
            .unwrap();
        let http = TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP))
            .await
            .unwrap();
        println!("{READY}");
        loop {
            tokio::select! {
                Ok((stream, _)) = echo.accept() => drop(tokio::spawn(echoes(stream))),
                Ok((stream, _)) = http.accept() => drop(tokio::spawn(answers(stream))),
            }
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

async fn answers(mut stream: TcpStream) -> std::io::Result<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.drain(..end + 4);
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
