//! Counts of bytes that others read while they grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes written to one side so far.
#[derive(Debug, Default)]
pub struct ByteCount(AtomicU64);

/// Bytes that a relay has moved, each way.
#[derive(Debug, Default)]
pub struct Transferred {
    /// From downstream to upstream.
    pub up: ByteCount,
    /// From upstream to downstream.
    pub down: ByteCount,
}

impl Transferred {
    /// Bytes so far, both ways.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.up.get() + self.down.get()
    }
}

/// So that a relay can count in what it is lent, or in what it owns.
impl AsRef<Transferred> for Transferred {
    fn as_ref(&self) -> &Transferred {
        self
    }
}

impl ByteCount {
    /// Bytes so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `bytes` more.
    pub fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
