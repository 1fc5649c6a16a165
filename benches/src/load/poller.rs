//! epoll(7), level-triggered: a wake-up is one receive, and whoever cannot send
//! asks to hear of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Events that are taken at a time.
const BATCH: usize = 256;

/// Whose event it is: a kind, and which of that kind. The generation tells an
/// event of a connection that has been closed from one of its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: u8,
    pub(super) key: u32,
    pub(super) generation: u32,
}

impl Token {
    /// Bits of the generation that are kept.
    const GENERATIONS: u32 = (1 << 24) - 1;

    pub(super) fn new(kind: u8, key: usize, generation: u32) -> Self {
        Self {
            kind,
            // There are fewer connections than file descriptors.
            key: u32::try_from(key).unwrap_or(u32::MAX),
            generation: generation & Self::GENERATIONS,
        }
    }

    /// The key as an index.
    pub(super) fn index(self) -> usize {
        self.key as usize
    }

    /// Whether it belongs to that generation of its key.
    pub(super) fn is_of(self, generation: u32) -> bool {
        self.generation == generation & Self::GENERATIONS
    }

    fn to_bits(self) -> u64 {
        u64::from(self.kind) << 56 | u64::from(self.generation) << 32 | u64::from(self.key)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes apart what to_bits put together"
    )]
    fn from_bits(bits: u64) -> Self {
        Self {
            kind: (bits >> 56) as u8,
            generation: (bits >> 32) as u32 & Self::GENERATIONS,
            key: bits as u32,
        }
    }
}

/// What a connection wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
    Both,
}

impl From<Interest> for epoll::EventFlags {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::Read => Self::IN,
            Interest::Write => Self::OUT,
            Interest::Both => Self::IN | Self::OUT,
        }
    }
}

/// An event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) token: Token,
    /// There are bytes, an end or an error to receive.
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// An epoll instance and the events that it last told of.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    told: usize,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: vec![nothing; BATCH],
            told: 0,
        })
    }

    /// Closing the descriptor ends it.
    pub(super) fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_bits());
        Ok(epoll::add(&self.epoll, fd, data, interest.into())?)
    }

    pub(super) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.to_bits());
        Ok(epoll::modify(&self.epoll, fd, data, interest.into())?)
    }

    pub(super) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, at most so long, and says how many there are.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.told = match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout.as_ref()) {
            Ok(told) => told,
            Err(Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(self.told)
    }

    /// The `nth` event of the last wait.
    pub(super) fn ready(&self, nth: usize) -> Option<Ready> {
        use epoll::EventFlags;

        let event = self.events.get(..self.told)?.get(nth).copied()?;
        let (flags, data) = (event.flags, event.data);
        let broken = EventFlags::ERR | EventFlags::HUP;
        Some(Ready {
            token: Token::from_bits(data.u64()),
            readable: flags.intersects(EventFlags::IN | broken),
            writable: flags.intersects(EventFlags::OUT | broken),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        let token = Token::new(3, 19_999, 0xff12_3456);
        assert_eq!(Token::from_bits(token.to_bits()), token);
        assert!(token.is_of(0xff12_3456));
        assert!(!token.is_of(0xff12_3457));
    }
}
