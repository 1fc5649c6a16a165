//! More bytes than any memory should hold.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
};

/// A prime just below a megabyte, so that no block of any buffer begins as the
/// last one did.
const PERIOD: usize = 1_048_573;

/// Sends `length` bytes into one end of a path and reads them at the other,
/// where they must be the same.
///
/// # Errors
/// When the path ends early, or other bytes come out.
pub fn move_bytes(from: &TcpStream, to: &TcpStream, length: usize) -> io::Result<()> {
    let pattern = pattern();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(from, &pattern, length));
        receive(to, &pattern, length)?;
        sending
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))
    })
}

/// Bytes that tell where they belong, two periods of them.
fn pattern() -> Vec<u8> {
    let mut state = 1_u32;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [high, ..] = state.to_be_bytes();
            high
        })
        .collect();
    period.repeat(2)
}

fn send(mut to: &TcpStream, pattern: &[u8], length: usize) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let block = PERIOD.min(left);
        to.write_all(pattern.get(..block).unwrap_or_default())?;
        left -= block;
    }
    Ok(())
}

fn receive(mut from: &TcpStream, pattern: &[u8], length: usize) -> io::Result<()> {
    let mut buffer = vec![0; 512 * 1024];
    let mut received = 0;
    while received < length {
        let most = buffer.len().min(length - received);
        let read = from.read(buffer.get_mut(..most).unwrap_or_default())?;
        let phase = received % PERIOD;
        if read == 0 {
            return Err(io::Error::other(format!("only {received} bytes")));
        }
        if buffer.get(..read) != pattern.get(phase..phase + read) {
            return Err(io::Error::other(format!("other bytes after {received}")));
        }
        received += read;
    }
    Ok(())
}
